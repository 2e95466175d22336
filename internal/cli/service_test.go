package cli_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bailey/internal/roottest"
)

// TestServiceManagerIsTold: the whole program, started as a service manager starts it, over a real socket: it is ready when the agent is,
// lives, and says that it stops.
func TestServiceManagerIsTold(t *testing.T) {
	roottest.Require(t, "the agent command starts for root only")
	dir, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = manager.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "300000")
	cmd, _ := child(t, "serves", nil)
	heard := hear(t, manager)
	for _, want := range []string{"STATUS=starting an agent", "READY=1", "STATUS=the agent answers", "WATCHDOG=1", "WATCHDOG=1"} {
		await(t, heard, want)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await(t, heard, "STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// hear returns the messages that arrive.
func hear(t *testing.T, manager *net.UnixConn) <-chan string {
	out := make(chan string, 64)
	if err := manager.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(out)
		buf := make([]byte, 4096)
		for {
			n, err := manager.Read(buf)
			if err != nil {
				return
			}
			out <- string(buf[:n])
		}
	}()
	return out
}

// await waits for a message that begins with want, and passes over those that come between.
func await(t *testing.T, heard <-chan string, want string) {
	t.Helper()
	var seen []string
	for m := range heard {
		if strings.HasPrefix(m, want) {
			return
		}
		seen = append(seen, m)
	}
	t.Fatalf("%q was not said, but %q", want, seen)
}
