package sdnotify_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"bailey/internal/sdnotify"
)

func environment(pairs map[string]string) func(string) string {
	return func(k string) string { return pairs[k] }
}

// manager is a service manager's socket.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestSay(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for name, path := range map[string]string{"file": filepath.Join(dir, "notify"), "abstract": fmt.Sprintf("@bailey-test-%d", os.Getpid())} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := manager(t, path)
			n := sdnotify.New(environment(map[string]string{"NOTIFY_SOCKET": path}), 7)
			if err := n.Say(sdnotify.Ready, sdnotify.Status("serving\nREADY=0")); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 256)
			if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			k, err := c.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := string(buf[:k]), "READY=1\nSTATUS=serving READY=0"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// TestNobodyWaits: a service manager that reads nothing.
func TestNobodyWaits(t *testing.T) {
	t.Parallel()
	path := fmt.Sprintf("@bailey-test-full-%d", os.Getpid())
	manager(t, path)
	n := sdnotify.New(environment(map[string]string{"NOTIFY_SOCKET": path}), 7)
	begin := time.Now()
	var err error
	for i := 0; err == nil && i < 100_000; i++ {
		err = n.Say(sdnotify.Alive)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestWithoutManager(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"", "relative"} {
		n := sdnotify.New(environment(map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000"}), 7)
		if err := n.Say(sdnotify.Ready); err != nil || n.Watchdog() != 0 {
			t.Errorf("%q: %v, %v", path, err, n.Watchdog())
		}
	}
	if err := sdnotify.New(environment(map[string]string{"NOTIFY_SOCKET": "/nowhere/at/all"}), 7).Say(sdnotify.Ready); err == nil {
		t.Error("nobody was told, and nothing said")
	}
}

func TestWatchdog(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		usec, pid string
		want      time.Duration
	}{
		"ours": {"30000000", "7", 30 * time.Second}, "anybodys": {"30000000", "", 30 * time.Second}, "anothers": {"30000000", "8", 0},
		"none": {"", "7", 0}, "nonsense": {"soon", "7", 0}, "zero": {"0", "7", 0}, "huge": {"9000000000000000000", "7", 0},
	} {
		n := sdnotify.New(environment(map[string]string{"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": tc.usec, "WATCHDOG_PID": tc.pid}), 7)
		if got := n.Watchdog(); got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}
