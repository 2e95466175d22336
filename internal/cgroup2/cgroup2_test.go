package cgroup2

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	group, err := Of(uint32(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	if has := strings.Contains("\n"+string(text), "\n0::"); has != (group != "") || !strings.Contains(string(text), "0::"+group) && has {
		t.Errorf("%q of\n%s", group, text)
	}
	if _, err := Of(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of nobody: %v", err)
	}
}
