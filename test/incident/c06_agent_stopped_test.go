package incident

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Tasks that wait for a fanotify answer, because the one who would give it is stopped or dead.
//
// Date: 2023-05-04.
// Source: github.com/canonical/hotsos/issues/594.
// Shipped: nothing: the listener itself is gone, and every process that opens a file waits for it.
// Must: G1 G2 G5. Stopped, the agent is stood in for within 100 ms of the first question; killed with a thousand questions open, all of
// them are released at once, and it serves again within 2 s. (Needs the keeper.)
func TestC06AgentStopped(t *testing.T) {
	t.Run("stopped", func(t *testing.T) {
		s := newScene(t)
		s.replay(story{ID: "C6-06d", Name: "hung tasks in fanotify, 2023", Must: "G1 G2 G5", Dies: true,
			Did: "none: the agent is stopped by SIGSTOP for three seconds"}, func(r *replay) {
			pid := int(r.Status().GetPid())
			// Whatever happens, nobody is left waiting.
			release := time.AfterFunc(5*time.Second, func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
			defer release.Stop()
			r.watch(func() {
				signal(t, []int{pid}, syscall.SIGSTOP)
				for start := time.Now(); time.Since(start) < 3*time.Second; {
					r.letsThrough("while the agent is stopped")
				}
				_ = syscall.Kill(pid, syscall.SIGCONT) // it may have been replaced
				r.until("the agent serves", agentBack+r.strained(slack), r.Serves)
				r.Running(witness)
			})
			r.verdicts, r.findings = r.Tap("verdict"), r.Tap("finding") // of the agent that serves now
		})
	})
	t.Run("killed", func(t *testing.T) {
		s := newSceneWith(t, func(*scene) string { return "[questions]\nopen_deadline = \"20s\"\nextend_cap = \"20s\"\n" })
		s.replay(story{ID: "C6-06e", Name: "hung tasks in fanotify, 2023", Must: "G1 G2 G5", Dies: true, Waits: thousandLooks,
			Did: "answers nothing; the agent is killed while a thousand questions are open"}, func(r *replay) {
			list := r.files("open", "f%d", "x", 1000)
			sp := r.spec(map[string]string{"hang": "true", "only": r.Scratch + "/open/"})
			sp.Workers, sp.Limits = "1100", "files = 4096\ncpu = 1.0\n" // so that none is a miss for want of room
			r.plays(sp)
			pid := int(r.Status().GetPid())
			var released time.Duration
			felt := r.watch(func() {
				var all sync.WaitGroup
				for _, d := range list {
					all.Go(func() {
						if err := d.try(); err != nil {
							r.t.Errorf("an open that waited: %v", err)
						}
					})
				}
				r.until("the questions are open", 10*time.Second, func() error {
					if n := r.Status().GetQuestions().GetInFlight(); n < 900 {
						return fmt.Errorf("%d in flight", n)
					}
					return nil
				})
				signal(t, []int{pid}, syscall.SIGKILL)
				start := time.Now()
				all.Wait()
				released = time.Since(start)
				r.until("the agent serves", agentBack+r.strained(slack), r.Serves)
				r.Running(witness)
			})
			if limit := keeperAnswers + thousandLooks + r.strained(slack) + felt.control.longest(); released > limit {
				r.errorf("the last of a thousand waited %s for a dead agent, the limit is %s", released, limit)
			}
			r.t.Logf("%s: a thousand were released within %s", r.row.ID, released)
			r.verdicts, r.findings = r.Tap("verdict"), r.Tap("finding")
		})
	})
}

// letsThrough opens and executes and checks that it takes no longer than the keeper has.
func (r *replay) letsThrough(when string) {
	r.t.Helper()
	start := time.Now()
	if err := opens(r.file); err != nil {
		r.errorf("open %s: %v", when, err)
	}
	if took := time.Since(start); took > keeperAnswers+r.strained(slack) {
		r.errorf("an open took %s %s", took, when)
	}
	time.Sleep(20 * time.Millisecond)
}
