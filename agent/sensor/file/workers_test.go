package file

import (
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// A process that is not known yet when the agent leaves everything to a successor is asked about all the same: nothing is let through because of an
// upgrade.
func TestUnknownProcessIsAskedAboutWhileTheAgentLeaves(t *testing.T) {
	r := newRig(t, "", func(c *Config) { c.Workers = 1 })
	path := r.file("f")
	first, second := startSubject(t), startSubject(t)
	r.answer(deny)
	r.procs.slow = make(chan struct{})
	r.procs.unknown.Store(true)
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(false, true)

	results := make(chan syscall.Errno, 2)
	for i, sub := range []*proc{first, second} {
		go func() {
			errno, _ := sub.try("open", path)
			results <- errno
		}()
		eventually(t, "it is asked about", func() bool { return r.s.Stats().Read == uint64(i+1) })
	}
	eventually(t, "one is looked up, the other waits for it", func() bool { return r.procs.loads.Load() == 1 })
	r.s.Leave()
	go func() {
		for !r.s.stopping.Load() {
			<-time.After(time.Millisecond)
		}
		close(r.procs.slow)
	}()
	r.stop()
	for range 2 {
		if errno := <-results; errno != unix.EPERM {
			t.Errorf("an open that is denied while the agent leaves ends with %v", errno)
		}
	}
}
