package incident

import (
	"testing"
	"time"
)

// Tasks that wait for a fanotify answer for minutes.
//
// Date: 2023-05-04.
// Source: github.com/canonical/hotsos/issues/594.
// Shipped: nothing: a third-party scanner does not answer, and every process that opens a file waits until somebody reboots.
// Must: G1 G2 G5. Each question has its answer at the deadline, whatever the product does; after a few misses nobody waits for it any
// more, and what canaries take is what it was before.
func TestC06Unanswered(t *testing.T) {
	t.Parallel()
	s := newSceneWith(t, func(*scene) string { return "[questions]\nextend_cap = \"1s\"\n" })
	const name = "hung tasks in fanotify, 2023"
	for _, c := range []struct {
		story
		settings map[string]string
		dropped  bool // it is not waited for in the end
	}{
		{story{ID: "C6-06a", Name: name, Must: "G1 G2 G5", Did: "takes every question and answers none"}, map[string]string{"hang": "true"}, true},
		{story{ID: "C6-06b", Name: name, Must: "G1 G2", Long: true, Did: "answers all questions but every 40th"}, map[string]string{"hang": "true", "every": "40"}, false},
		{story{ID: "C6-06c", Name: name, Must: "G1 G2 G5", Did: "answers for a while and then no more"}, map[string]string{"hang_after": "400ms"}, true},
		{story{ID: "C6-x1", Name: "another trigger: stopped by a signal", Must: "G1 G2 G5", Did: "stops itself with SIGSTOP at a question"},
			map[string]string{"fault": "stop", "at": "question"}, true},
		{story{ID: "C6-x2", Name: "another trigger: late", Must: "G1 G2 G5", Long: true, Did: "answers everything a little too late"}, map[string]string{"delay": "450ms"}, true},
		{story{ID: "C6-x3", Name: "another trigger: asks for more time for ever", Must: "G1 G2 G5", Cap: time.Second,
			Did: "extends every question again and again and answers none"}, map[string]string{"slow": "true"}, true},
	} {
		s.replay(c.story, func(r *replay) {
			before := r.watchFor(300 * time.Millisecond)
			sp := r.spec(c.settings)
			sp.Workers = "32"
			r.plays(sp)
			if !c.dropped {
				r.watchFor(time.Second)
				if p := r.Product(r.name); p.GetCounters().GetMisses() == 0 {
					r.errorf("it missed nothing: %v", p.GetCounters())
				}
				return
			}
			r.watch(func() { r.until("it is not waited for", notAnswering, r.isDegraded) })
			r.backToNormal(before, r.watchFor(300*time.Millisecond))
		})
	}
}
