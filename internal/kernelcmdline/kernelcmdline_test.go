package kernelcmdline_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"bailey/internal/kernelcmdline"
	"bailey/internal/roottest"

	"golang.org/x/sys/unix"
)

func TestHas(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		line string
		want bool
	}{
		"empty":       {"", false},
		"alone":       {"bailey.guard=off", true},
		"among":       {"BOOT_IMAGE=/vmlinuz root=/dev/vda1 bailey.guard=off quiet", true},
		"quoted":      {`"bailey.guard=off" quiet`, true},
		"part":        {"xbailey.guard=off bailey.guard=offline", false},
		"inside":      {`note="please not bailey.guard=off here"`, false},
		"for_init":    {"quiet -- bailey.guard=off", false},
		"other_value": {"bailey.guard=on", false},
	} {
		if got := kernelcmdline.Has(tc.line, "bailey.guard=off"); got != tc.want {
			t.Errorf("%s: %q: got %v", name, tc.line, got)
		}
	}
}

// TestReadIsNotFooled: a file mounted over /proc/cmdline says nothing.
func TestReadIsNotFooled(t *testing.T) {
	roottest.Require(t, "mounts in a namespace of its own")
	want, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	lie := filepath.Join(t.TempDir(), "cmdline")
	if err := os.WriteFile(lie, []byte("bailey.guard=off\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, seen := make(chan string, 1), make(chan string, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		defer close(got)
		if unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS) != nil || unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") != nil ||
			unix.Mount(lie, "/proc/cmdline", "", unix.MS_BIND, "") != nil {
			seen <- ""
			return
		}
		text, _ := os.ReadFile("/proc/cmdline")
		seen <- string(text)
		line, err := kernelcmdline.Read()
		if err != nil {
			line = "error: " + err.Error()
		}
		got <- line
	}()
	if !strings.Contains(<-seen, "bailey.guard=off") {
		roottest.Unavailable(t, "nothing can be mounted over /proc/cmdline here")
	}
	if line := <-got; line != strings.TrimRight(string(want), "\n") {
		t.Errorf("got %q, want %q", line, want)
	}
}
