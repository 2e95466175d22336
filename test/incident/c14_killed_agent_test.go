package incident

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

// osquery turns audit off for everyone: the platform itself is what is killed.
//
// Date: 2019-01-22.
// Source: github.com/osquery/osquery/issues/5381.
// Shipped: nothing: what a dead process leaves in the kernel, or its successor "restores", is the whole machine's.
// Must: G4. A killed agent leaves nothing that its successor does not take over, and at the end nothing is left. (Needs the keeper.)
func TestC14KilledAgent(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.replay(story{ID: "C14-02b", Name: "osquery and audit, 2019", Must: "G4", Dies: true,
		Did: "is healthy; the agent is killed three times"}, func(r *replay) {
		r.plays(r.spec(nil))
		before := takeGlobals(t)
		var held []bpfObject
		r.watch(func() {
			for range 3 {
				pid := r.Status().GetPid()
				held = append(held, bpfObjects(t, int(pid))...)
				signal(t, []int{int(pid)}, syscall.SIGKILL)
				r.until("another agent serves", 10*time.Second, func() error {
					if err := r.Serves(); err != nil {
						return err
					}
					if now := r.Status().GetPid(); now == pid {
						return fmt.Errorf("still process %d", now)
					}
					return nil
				})
				r.Running(witness)
				r.Running(r.name)
			}
		})
		before.compare(r)
		held = append(held, bpfObjects(t, int(r.Status().GetPid()))...)
		r.Stop()
		r.until("nothing of any of them is in the kernel", 10*time.Second, func() error { return stillThere(held) })
		r.again()
	})
}
