package file

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
)

func TestQuestionSaysWhoAndWhat(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(true, true)
	path := r.file("a file")
	seen := make(chan *event.Question, 1)
	r.answer(func(q *event.Question) {
		if q.Kind == event.Open {
			var b [4]byte
			if n, err := unix.Pread(q.FD, b[:], 2); err != nil || string(b[:n]) != "2345" {
				t.Errorf("reading through the question: %q, %v", b[:n], err)
			}
			select {
			case seen <- &event.Question{ID: q.ID, Kind: q.Kind, PID: q.PID, Process: q.Process, File: q.File, Time: q.Time}:
			default:
			}
		}
		allow(q)
	})
	sub := startSubject(t)
	sub.do("open", path)
	q := <-seen
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	want := event.File{Path: path, Dev: st.Dev, Ino: st.Ino, CTime: st.Ctim.Nano(), MTime: st.Mtim.Nano(), Size: 10, Mode: st.Mode}
	if q.File != want || q.PID != sub.pid() || q.Process == nil || q.Process.Key.PID != sub.pid() || q.Time == 0 || q.ID == 0 {
		t.Errorf("question %d by %d: file %+v\nwant %+v", q.ID, q.PID, q.File, want)
	}
}

func TestDenyIsEPERM(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(true, true)
	file, bin := r.file("f"), r.binary("true")
	sub := startSubject(t)
	sub.do("open", file)
	sub.do("exec", bin)
	r.answer(deny)
	if err := r.s.FlushCache(); err != nil {
		t.Fatal(err)
	}
	if errno, _ := sub.try("open", file); errno != unix.EPERM {
		t.Errorf("open: %v", errno)
	}
	if errno, _ := sub.try("exec", bin); errno != unix.EPERM {
		t.Errorf("exec: %v", errno)
	}
}

// The marks of one kind must not hide the other's questions.
func TestKindsAreAskedAndCachedApart(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{r.dir})
	bin := r.binary("true")
	sub := startSubject(t)

	r.s.SetQuestions(true, false)
	sub.do("open", bin)
	if n := r.asked(event.Open); n != 0 {
		t.Fatalf("%d open questions while only exec was wanted", n)
	}
	set := func(n uint64) { // the mark comes after the answer
		t.Helper()
		eventually(t, "the verdict is cached", func() bool { return r.s.Stats().CacheSet == n })
	}
	sub.do("exec", bin)
	set(1)
	sub.do("exec", bin)
	if n := r.asked(event.Exec); n != 1 {
		t.Fatalf("%d exec questions, want 1: the second is cached", n)
	}
	r.s.SetQuestions(true, true)
	sub.do("open", bin)
	set(2)
	sub.do("open", bin)
	if n := r.asked(event.Open); n != 1 {
		t.Fatalf("%d open questions, want 1: the exec mark must not answer them, its own must", n)
	}
	sub.do("exec", bin)
	if n := r.asked(event.Exec); n != 1 {
		t.Fatalf("%d exec questions, want still 1: the open mark must not drop the exec mark", n)
	}
	r.s.SetQuestions(false, false)
	if err := r.s.FlushCache(); err != nil {
		t.Fatal(err)
	}
	sub.do("exec", bin)
	sub.do("open", bin)
	if st := r.s.Stats(); r.asked(event.Exec) != 1 || r.asked(event.Open) != 1 {
		t.Fatalf("asked with nothing wanted: %+v", st)
	}
}

func TestCachedAllowMakesNoUpcallOver100000Opens(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(false, true)
	path := r.file("f")
	sub := startSubject(t)
	r.cached(sub, path)
	before := r.s.Stats().Read
	took := sub.do("openmany", path, "100000")
	if after := r.s.Stats().Read; after != before {
		t.Errorf("%d upcalls over 100,000 cached opens", after-before)
	}
	t.Logf("%.2f µs a cached open+close", float64(took.Microseconds())/100_000)
}

func TestWhoIsNotAsked(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(false, true)
	path := r.file("f")
	r.answer(deny)
	sub := startSubject(t)

	if fd, err := os.Open(path); err != nil {
		t.Errorf("the platform was asked: %v", err)
	} else {
		_ = fd.Close()
	}
	r.exempt.Store(sub.pid())
	sub.do("open", path)
	r.exempt.Store(0)
	if n := r.asked(event.Open); n != 0 {
		t.Errorf("%d questions for the exempt", n)
	}
	kernel := startSubject(t)
	r.procs.kernel.Store(kernel.pid())
	kernel.do("open", path)
	if n := r.asked(event.Open); n != 0 {
		t.Errorf("%d questions for a kernel thread", n)
	}
	r.procs.neverAsk.Store(sub.pid())
	never := make(chan bool, 1)
	r.answer(func(q *event.Question) {
		never <- q.NeverAsk
		allow(q)
	})
	sub.do("open", path)
	if !<-never {
		t.Error("the question of a never-ask process does not say so")
	}
	// Two by this test, which made the file and opened it, one by each of the others.
	if st := r.s.Stats(); st.Exempt != 4 || st.Answered[event.ByIdentity] != 4 {
		t.Errorf("exempt %d, by identity %d, want 4", st.Exempt, st.Answered[event.ByIdentity])
	}
}

// F9: missing context never denies, and never waits for ever.
func TestUnknownProcesses(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(false, true)
	path := r.file("f")
	r.answer(deny)
	sub := startSubject(t)
	r.procs.unknown.Store(true)
	if errno, _ := sub.try("open", path); errno != unix.EPERM {
		t.Errorf("with a process that must be loaded: %v, want the product's deny", errno)
	}
	r.procs.unload.Store(true)
	sub.do("open", path)
	eventually(t, "the answers are counted", func() bool { return r.s.Stats().Pending == 0 }) // which is after they are given
	st := r.s.Stats()
	if st.Loaded != 1 || st.Unloaded != 1 || st.Answered[event.ByIncomplete] != 1 {
		t.Errorf("%+v", st)
	}
}

func TestFullWorkersAllow(t *testing.T) {
	slow := make(chan struct{})
	r := newRig(t, "", func(c *Config) { c.Workers, c.queue = 1, 1 })
	r.procs.slow = slow
	r.procs.unknown.Store(true)
	r.s.SetOpenScope([]string{r.dir})
	path := r.file("f")
	r.s.SetQuestions(false, true)
	var waiting sync.WaitGroup
	for i := range 2 { // one in the worker's hands, one in the queue
		sub := startSubject(t)
		waiting.Go(func() { _, _ = sub.try("open", path) })
		eventually(t, "its question is read", func() bool { return r.s.Stats().Read == uint64(i+1) })
		if i == 0 {
			eventually(t, "the worker has it", func() bool { return r.procs.loads.Load() == 1 })
		}
	}
	startSubject(t).do("open", path)
	close(slow)
	waiting.Wait()
	// An answer is counted after the kernel has it: whoever asked may look before.
	eventually(t, "all are counted", func() bool { return r.s.Stats().Pending == 0 })
	if st := r.s.Stats(); st.Overloaded != 1 || st.Answered[event.ByOverload] != 1 || st.Loaded != 2 {
		t.Errorf("%+v", st)
	}
}

// The kernel opens a FIFO for us before it asks. The reader must not wait for its other end, nor be taken for it.
func TestFIFODoesNotBlockTheReader(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetQuestions(false, true)
	fifo := filepath.Join(r.dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	path := r.file("f")
	reader, other := startSubject(t), startSubject(t)
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		_, _ = reader.try("open", fifo)
	}()
	select {
	case <-opened:
		t.Error("the FIFO's reader opened it without a writer")
	case <-time.After(100 * time.Millisecond):
	}
	r.answer(allow)
	for range 5 {
		other.do("open", path)
	}
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	<-opened
	_ = w.Close()
	if n := r.asked(event.Open); n != 5 {
		t.Errorf("asked %d times, want 5 for the regular file", n)
	}
	if r.s.Stats().Unscoped == 0 {
		t.Log("this kernel asks nothing about a FIFO (6.14 and later), so that only older ones put this test to work")
	}
	if n := r.s.Stats().Rescues; n > 1 { // one can be a busy machine's
		t.Errorf("the reader was stuck in the FIFO: %d rescues", n)
	}
}
