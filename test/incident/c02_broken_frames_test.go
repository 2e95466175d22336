package incident

import (
	"fmt"
	"testing"
	"time"

	"bailey/test/rig"
)

// Falco and new kernels, seen from the other side: what a parser does not expect comes from a product.
//
// Date: 2026-09.
// Source: github.com/falcosecurity/falco/issues/3955.
// Shipped: a kernel update: a record that the parser did not know ended the process that read it, every six minutes.
// Must: G1 G2 G4. Whatever a product sends, and however often, the agent reads on, counts it against that product alone and ends the
// conversation; its questions are answered by the default.
func TestC02BrokenFrames(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.replay(story{ID: "C2-x1", Name: "another trigger: frames that nobody expects", Must: "G1 G2 G4",
		Did: "six products send malformed, oversized, foreign and unasked frames, second answers and descriptors"}, func(r *replay) {
		pid := r.Status().GetPid()
		names := map[string]string{
			"malformed": "ready", "oversized": "ready", "agentskind": "ready", "unasked": "ready", "descriptor": "ready", "twice": "question",
		}
		r.watch(func() {
			for fault, at := range names {
				r.attempts(rig.Spec{Name: "frames-" + fault, Questions: "exec,open", Settings: map[string]string{"fault": fault, "at": at}})
			}
			r.until("each is counted and ended", rollBack, func() error {
				there := 0
				for _, p := range r.Status().GetProducts() {
					if p.GetName() == witness {
						continue
					}
					there++
					if p.GetRestarts() == 0 && p.GetState() != "failed" {
						return fmt.Errorf("%s is %s, %d faults", p.GetName(), p.GetState(), p.GetCounters().GetFaults())
					}
				}
				if there != len(names) {
					return fmt.Errorf("%d of %d are there", there, len(names))
				}
				return nil
			})
		})
		if now := r.Status().GetPid(); now != pid {
			r.errorf("the agent is process %d, it was %d", now, pid)
		}
	})
	s.replay(story{ID: "C2-x2", Name: "another trigger: acknowledgements of nothing", Must: "G1 G4",
		Did: "acknowledges a thousand events that it was never sent, and wants more events"}, func(r *replay) {
		sp := r.spec(map[string]string{"fault": "overack", "at": "ready"})
		sp.Events = "exec"
		r.watch(func() {
			r.plays(sp)
			time.Sleep(500 * time.Millisecond)
		})
		if p := r.Product(r.name); p.GetState() != "running" || p.GetCounters().GetFaults() == 0 {
			r.errorf("it is %s with %d faults", p.GetState(), p.GetCounters().GetFaults())
		}
	})
}
