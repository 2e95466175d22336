package file

import (
	"os"
	"testing"

	"bailey/agent/event"
)

// A process whose exec is not known yet when it asks is who it is all the same: an exempt daemon is not asked about, and a
// never-ask program is said to be one.
func TestUnknownProcessIsLookedAtAgain(t *testing.T) {
	r := newRig(t, "")
	path := r.file("f")
	sub := startSubject(t)
	asked := make(chan bool, 16)
	r.answer(func(q *event.Question) {
		if int(q.PID) != os.Getpid() {
			asked <- q.NeverAsk
		}
		allow(q)
	})
	r.procs.slow = make(chan struct{})
	r.procs.unknown.Store(true)
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(false, true)

	during := func(change func()) {
		t.Helper()
		before, done := r.procs.loads.Load(), make(chan struct{})
		go func() {
			defer close(done)
			sub.do("open", path)
		}()
		eventually(t, "the process is loaded", func() bool { return r.procs.loads.Load() > before })
		change()
		r.procs.slow <- struct{}{}
		<-done
	}
	during(func() { r.procs.neverAsk.Store(sub.pid()) })
	if never := <-asked; !never {
		t.Error("the question of a never-ask process does not say so")
	}
	during(func() { r.exempt.Store(sub.pid()) })
	select {
	case <-asked:
		t.Error("an exempt daemon was asked about")
	default:
	}
}
