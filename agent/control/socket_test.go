package control_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bailey/agent/control"
	"bailey/agent/control/controltest"
	controlv1 "bailey/api/control/v1"
)

func TestLiveAgentKeepsItsSocket(t *testing.T) {
	t.Parallel()
	a := run(t, nil)
	_, err := control.New(controltest.New().Config(filepath.Dir(a.path)))
	var f *control.Fault
	if !errors.Is(err, control.ErrInUse) || !errors.As(err, &f) || f.Hint == "" {
		t.Errorf("a second agent: got %v", err)
	}
	c, err := net.Dial("unix", a.path)
	if err != nil {
		t.Fatalf("the first one's socket: %v", err)
	}
	_ = c.Close()
}

func TestDeadAgentsSocketIsReplaced(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, controlv1.SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := control.New(controltest.New().Config(dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left over: %v %v", left, err)
	}
}

func TestOtherFilesAreNotReplaced(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	path := filepath.Join(dir, controlv1.SocketName)
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := control.New(controltest.New().Config(dir)); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("got %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "precious" {
		t.Errorf("the file: %q %v", data, err)
	}
}

func TestLongPathIsExplained(t *testing.T) {
	t.Parallel()
	_, err := control.New(controltest.New().Config(filepath.Join(t.TempDir(), strings.Repeat("x", 100))))
	if err == nil || !strings.Contains(err.Error(), "at most 107") {
		t.Errorf("got %v", err)
	}
}
