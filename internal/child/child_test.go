package child

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"bailey/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// start starts a shell that ends with the test.
func start(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start(exec.Command("/bin/sh", "-c", script))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(p.PID(), syscall.SIGKILL)
		_ = p.Wait()
	})
	return p
}

// TestStop: what ends in order, what ends with an error and what does not end.
func TestStop(t *testing.T) {
	for _, c := range []struct{ name, script, want string }{
		{"in_order", `trap 'exit 0' TERM; echo; while :; do sleep 0.01; done`, "<nil>"},
		{"with_an_error", `trap 'exit 3' TERM; echo; while :; do sleep 0.01; done`, "told to end, it ended with exit status 3"},
		{"does_not", `trap '' TERM; echo; exec sleep 60`, "told to end, it did not within 50ms and was killed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command("/bin/sh", "-c", c.script)
			ready, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			p, err := Start(cmd)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ready.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			patience := 10 * time.Second
			if c.name == "does_not" {
				patience = 50 * time.Millisecond
			}
			if got := fmt.Sprint(p.Stop(patience)); got != c.want {
				t.Errorf("%s", got)
			}
			if err := syscall.Kill(p.PID(), 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("it is still there: %v", err)
			}
		})
	}
}

// TestUntil: it tries until it succeeds, the process ends or the time does.
func TestUntil(t *testing.T) {
	never := errors.New("not yet")
	p := start(t, "exec sleep 60")
	n := 0
	err := p.Until(t.Context(), func() error {
		if n++; n < 3 {
			return never
		}
		return nil
	})
	if err != nil || n != 3 {
		t.Errorf("%v after %d tries", err, n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := p.Until(ctx, func() error { return never }); !errors.Is(err, never) || !strings.HasPrefix(err.Error(), "in ") {
		t.Errorf("out of time: %v", err)
	}
	for script, want := range map[string]string{"exit 0": "it ended: exit status 0", "exit 3": "it ended: exit status 3"} {
		if err := start(t, script).Until(t.Context(), func() error { return never }); err == nil || err.Error() != want {
			t.Errorf("%s: %v", script, err)
		}
	}
}

// TestNoProgram: what cannot be started is said at once.
func TestNoProgram(t *testing.T) {
	if _, err := Start(exec.Command("/nonexistent")); err == nil {
		t.Error("started")
	}
}
