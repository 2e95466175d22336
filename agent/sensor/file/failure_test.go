package file

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/agent/health"
)

// holder keeps questions unanswered until they are let go.
type holder struct {
	mu sync.Mutex
	qs []*event.Question
}

func (h *holder) take(q *event.Question) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.qs = append(h.qs, q)
}

func (h *holder) n() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.qs)
}

func (h *holder) letGo() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, q := range h.qs {
		allow(q)
	}
	h.qs = nil
}

// F5 in part, F10: closing the sensor answers a thousand blocked openers; their questions are released later, by others.
func TestCloseLetsAThousandOpenersGo(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(false, true)
	path := r.file("f")
	var h holder
	r.answer(h.take)
	sub := startSubject(t)
	done := make(chan time.Time, 1)
	go func() {
		sub.do("openpar", path, "1000")
		done <- time.Now()
	}()
	eventually(t, "a thousand questions are held", func() bool { return h.n() == 1000 })
	start := time.Now()
	r.cancel()
	select {
	case end := <-done:
		t.Logf("all returned after %v", end.Sub(start))
	case <-time.After(waitLimit):
		t.Fatal("openers are left waiting")
	}
	for _, q := range h.qs {
		if !q.Answered() {
			t.Fatal("a question is unanswered")
		}
	}
	h.letGo()
	r.stop()
	if st := r.s.Stats(); st.Answered[event.ByShutdown] != 1000 {
		t.Errorf("answered by shutdown: %d", st.Answered[event.ByShutdown])
	}
}

// F6: too many questions, or too few descriptors, allow; nothing is refused and nobody waits.
func TestFewDescriptors(t *testing.T) {
	dir := scratch(t)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	sub, other := startSubject(t), startSubject(t) // before the limit falls
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 300, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &old) }()
	r := newRig(t, dir)
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(false, true)
	path := r.file("f")

	var h holder
	r.answer(h.take)
	done := make(chan struct{})
	go func() {
		defer close(done)
		sub.do("openpar", path, "250")
	}()
	want := 300/2 - ballastSize
	eventually(t, "the others are let through", func() bool { return h.n() == want && r.s.Stats().Overloaded == uint64(250-want) })
	h.letGo()
	<-done

	// Somebody else in the process takes every descriptor.
	var hog []int
	for {
		fd, err := unix.FcntlInt(uintptr(r.s.wake), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			break
		}
		hog = append(hog, fd)
	}
	r.answer(allow)
	refused := 0
	for range 50 {
		if errno, _ := other.try("open", path); errno != 0 {
			refused++
		}
	}
	st := r.s.Stats()
	t.Logf("%d of 50 refused, %d EMFILE, %d allowed for want of descriptors", refused, st.EMFILE, st.NearlyFull)
	// The kernel itself refuses the one opener for whom there was no descriptor at all; the ballast serves the others.
	if refused > 1 || uint64(refused) != st.EMFILE || st.NearlyFull == 0 {
		t.Errorf("%d of 50 openers were refused: %+v", refused, st)
	}
	eventually(t, "health says so", func() bool {
		for _, e := range r.health.List() {
			if e.Component == componentFiles && e.Status == health.Degraded {
				return true
			}
		}
		return false
	})
	for _, fd := range hog {
		_ = unix.Close(fd)
	}
	before := r.asked(event.Open)
	other.do("open", path)
	if r.asked(event.Open) != before+1 {
		t.Error("with descriptors back the question is not asked")
	}
	eventually(t, "health recovers", func() bool {
		for _, e := range r.health.List() {
			if e.Component == componentFiles && e.Status == health.OK {
				return true
			}
		}
		return false
	})
}

// F7: one read takes a bounded number of events, so that what one slow question delays is bounded too.
func TestReadsAreSized(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(false, true)
	path := r.file("f")
	gate := make(chan struct{})
	before := r.s.Stats().Read
	r.answer(func(q *event.Question) {
		<-gate
		allow(q)
	})
	sub := startSubject(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		sub.do("openpar", path, "300")
	}()
	eventually(t, "the first question is asked", func() bool { return r.asked(event.Open) == 1 })
	<-time.After(50 * time.Millisecond) // let the others queue up
	fds := r.openFiles(path)
	close(gate)
	<-done
	if fds > readBatch {
		t.Errorf("%d descriptors of waiting events were open at once, want at most %d", fds, readBatch)
	}
	if n := r.s.Stats().Read - before; n != 300 {
		t.Errorf("read %d", n)
	}
}

// openFiles counts this process's descriptors on path.
func (r *rig) openFiles(path string) int {
	n := 0
	for fd := range 4096 {
		var link [32]byte
		var buf [4096]byte
		if size, errno := sysReadlink(fdLink(&link, fd), buf[:]); errno == 0 && string(buf[:size]) == path {
			n++
		}
	}
	return n
}

// F2: at work the sensor opens nothing on what it watches. Its own opens would be questions of its own process.
func TestOpensNothingOnAWatchedMount(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{"/"})
	r.s.SetEvents(event.KindsOf(event.Create, event.CloseWrite, event.Rename, event.Unlink, event.Attrib))
	r.s.SetQuestions(true, true)
	path, bin := r.file("f"), r.binary("tool")
	r.answer(allow)
	sub := startSubject(t)
	before := r.s.Stats()
	sub.do("openmany", path, "2000")
	sub.do("execmany", bin, "50")
	for range 200 {
		sub.do("write", path)
		sub.do("chmod", path)
	}
	sub.do("create", filepath.Join(r.dir, "g"))
	sub.do("rename", filepath.Join(r.dir, "g"), filepath.Join(r.dir, "h"))
	sub.do("unlink", filepath.Join(r.dir, "h"))
	for range 5 {
		r.s.SetQuestions(true, true)
		r.s.Rescan()
	}
	r.event(event.Unlink, filepath.Join(r.dir, "h"))
	after := r.s.Stats()
	if n := after.Exempt - before.Exempt; n != 0 {
		t.Errorf("%d questions by the sensor's own process", n)
	}
	if after.Asked-before.Asked < 2250 {
		t.Errorf("asked %d times", after.Asked-before.Asked)
	}
}

// F1: nothing that logs or reports may hold up an answer.
func TestAnswersWhileHealthIsStuck(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(false, true)
	path := r.file("f")
	r.answer(allow)
	stuck := make(chan struct{})
	entered := make(chan struct{}, 16)
	r.health.Watch(func(health.Entry) {
		entered <- struct{}{}
		<-stuck
	})
	r.s.count.overflow.Add(1)
	r.s.alarm(alarmOverflow)
	<-entered
	took := startSubject(t).do("openmany", path, "1000")
	close(stuck)
	t.Logf("1,000 questions in %v while a health watcher hung", took)
	found := false
	for _, e := range r.health.List() {
		found = found || e.Component == componentQuestions && e.Status == health.Failed
	}
	if !found {
		t.Error("the overflow is not in the health registry")
	}
}
