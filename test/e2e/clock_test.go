package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bailey/internal/boottime"
	"bailey/internal/roottest"
	"bailey/test/rig"

	"golang.org/x/sys/unix"
)

// TestClockJumps: the wall clock of the machine jumps by days, both ways. The agent protects as before, so does the next one, what was
// written before the jump stays readable, and the jump has a name.
func TestClockJumps(t *testing.T) {
	roottest.RequireVM(t, "sets the clock of the whole machine")
	a := startAgent(t, keeperConfig)
	bad := a.Program("bad")
	a.Install(rig.Spec{Name: "judge", Questions: "exec", Settings: map[string]string{"deny_path": bad}})
	refused := 0
	protects := func(when string) {
		t.Helper()
		begin := boottime.Now()
		if err := execs(a.Program("good")); err != nil {
			t.Errorf("%s: a good program: %v", when, err)
		}
		a.Eventually("it refuses "+when, 20*time.Second, func() error { return refusal(execs(bad)) })
		t.Logf("%s: judged after %v", when, time.Duration(boottime.Now()-begin))
		refused++
		// Of everything so far, by what the clock says now; the last second may not be on disk yet.
		a.Eventually("the record of all that was refused", 10*time.Second, func() error {
			n := 0
			for line := range strings.Lines(a.Must("history", "--state", a.State, "--since", "1h", "--json", "--kind", "verdict")) {
				if strings.Contains(line, strconv.Quote(bad)) && !strings.Contains(line, `"allow":true`) {
					n++
				}
			}
			if n < refused {
				return fmt.Errorf("%d of %d are found", n, refused)
			}
			return nil
		})
	}
	protects("before")
	for _, jump := range []struct {
		by   time.Duration
		says string
	}{{24 * time.Hour, "forward"}, {-48 * time.Hour, "back"}, {24 * time.Hour, "forward"}} {
		setClock(t, jump.by)
		protects(fmt.Sprintf("after a jump of %v", jump.by))
		a.Eventually("it names the jump", 10*time.Second, func() error {
			if e := a.Health("clock"); e.GetStatus() != "degraded" || !strings.Contains(e.GetSummary(), jump.says) {
				return fmt.Errorf("it says %v", e)
			}
			return nil
		})
		pid := agentPID(a, 0)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		agentPID(a, pid)
		protects(fmt.Sprintf("by the next agent, %v later", jump.by))
		a.Must("journal", "verify", "--state", a.State)
	}
}

// setClock moves the machine's wall clock.
func setClock(t *testing.T, by time.Duration) {
	t.Helper()
	ts := unix.NsecToTimespec(time.Now().Add(by).UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		t.Fatal(err)
	}
}
