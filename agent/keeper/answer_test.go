package keeper

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"bailey/internal/boottime"
	"bailey/internal/leakcheck"
	"bailey/internal/roottest"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		playRole(os.Args[1])
	}
	leakcheck.Main(m)
}

// rig is an answerer with a group that asks about opens on a scratch filesystem.
type rig struct {
	t     *testing.T
	a     *answerer
	group int
	dir   string
	files []string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	roottest.Require(t, "marks a scratch filesystem")
	dir := filepath.Join(t.TempDir(), "scratch")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bailey-keeper", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	group, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_UNLIMITED_QUEUE, unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(group) })
	if err := unix.FanotifyMark(group, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN_PERM, unix.AT_FDCWD, dir); err != nil {
		t.Fatal(err)
	}
	b, err := NewBoard()
	if err != nil {
		t.Fatal(err)
	}
	a, err := newAnswerer(b, false, 4096, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(a.wakeFD); _ = b.Close() })
	a.answers(group)
	return &rig{t: t, a: a, group: group, dir: dir, files: []string{file}}
}

// serving has this process be the agent, which serves and is never ended, and returns what makes the answerer look once more.
func (r *rig) serving() (step func()) {
	r.t.Helper()
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = unix.Close(self) })
	r.a.watch(self)
	r.a.board.Serving.Store(1)
	r.a.killAfter = time.Hour
	now := boottime.Now()
	return func() { now += uint64(tick); r.a.look(now) }
}

// open has n processes open the file, each of which waits for an answer, and returns a function that waits for all.
func (r *rig) open(n int) (done func(within time.Duration)) {
	r.t.Helper()
	var wg sync.WaitGroup
	var failed atomic.Int64
	for range n {
		cmd := exec.Command("/bin/cat", r.files[0])
		if err := cmd.Start(); err != nil {
			r.t.Fatal(err)
		}
		wg.Go(func() {
			if cmd.Wait() != nil {
				failed.Add(1)
			}
		})
	}
	return func(within time.Duration) {
		r.t.Helper()
		end := make(chan struct{})
		go func() { wg.Wait(); close(end) }()
		select {
		case <-end:
		case <-time.After(within):
			r.t.Fatal("openers still wait")
		}
		if f := failed.Load(); f > 0 {
			r.t.Errorf("%d openers were refused", f)
		}
	}
}

// read takes n questions as an agent would and leaves them unanswered.
func (r *rig) read(n int) []int32 {
	r.t.Helper()
	var fds []int32
	for end := time.Now().Add(20 * time.Second); len(fds) < n && time.Now().Before(end); {
		var m unix.FanotifyEventMetadata
		got, _, errno := unix.Syscall(unix.SYS_READ, uintptr(r.group), uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m))
		if errno == unix.EAGAIN {
			time.Sleep(time.Millisecond) //nolint:forbidigo // openers are processes that start
			continue
		}
		if errno != 0 || got == 0 {
			r.t.Fatalf("read: %v", errno)
		}
		fds = append(fds, m.Fd)
	}
	if len(fds) != n {
		r.t.Fatalf("read %d of %d questions", len(fds), n)
	}
	return fds
}

func closeAll(fds []int32) {
	for _, fd := range fds {
		_ = unix.Close(int(fd))
	}
}

// F5: an agent that died had a thousand waiters, half of them read, half of them not.
func TestADeadAgentsQuestionsAreAnsweredAndCounted(t *testing.T) {
	r := newRig(t)
	const waiters = 1000
	done := r.open(waiters)
	fds := r.read(waiters / 2)
	defer closeAll(fds)
	begin := boottime.Now()
	r.a.died.Store(true)
	r.a.agent.Store(-1)
	r.a.tookOver(true)
	var took uint64
	for end := time.Now().Add(20 * time.Second); r.a.board.Bypassed.Load() < waiters; {
		if time.Now().After(end) {
			break
		}
		r.a.answerAll()
		if took == 0 && r.a.board.Bypassed.Load() >= waiters/2 {
			took = boottime.Now() - begin
		}
	}
	done(20 * time.Second)
	if n := r.a.board.Bypassed.Load(); n != waiters {
		t.Errorf("%d of %d questions counted", n, waiters)
	}
	if !r.a.swept.Load() {
		t.Error("the numbers are not all tried")
	}
	t.Logf("the first %d answers took %v", waiters/2, time.Duration(took))
}

// An agent that was stopped and goes on answers nothing twice: not its own questions, which the keeper answered, nor one of
// the keeper's that has the number of one of its own.
func TestAnAnswerTooLateMeetsNobody(t *testing.T) {
	r := newRig(t)
	done := r.open(1)
	fds := r.read(1)
	defer closeAll(fds)
	r.a.tookOver(true)
	r.a.answerAll()
	done(10 * time.Second)
	if r.a.respond(int32(r.group), fds[0]) {
		t.Error("a question was answered twice")
	}
}

func TestAnsweringAllocatesNothing(t *testing.T) {
	r := newRig(t)
	r.a.bypassing = true
	allocs := testing.AllocsPerRun(50, func() {
		r.a.sweepAt = 0
		r.a.fds = [3]unix.PollFd{}
		r.a.look(boottime.Now())
		r.a.wait()
	})
	if allocs != 0 {
		t.Errorf("%v allocations a round", allocs)
	}
}

func TestASilentAgentIsNoticedAndGivenAnotherChance(t *testing.T) {
	r := newRig(t)
	a, step := r.a, r.serving()
	step()
	if a.bypassing {
		t.Fatal("an agent that nobody asks is taken for silent")
	}
	done := r.open(1)
	for end := time.Now().Add(10 * time.Second); !a.readable(int32(r.group)) && time.Now().Before(end); {
		time.Sleep(time.Millisecond) //nolint:forbidigo // the opener is a process that starts
	}
	for i := range strikes {
		if a.bypassing {
			t.Fatalf("taken for silent after %d looks", i)
		}
		step()
	}
	if !a.bypassing || a.board.Bypassed.Load() != 1 {
		t.Fatalf("bypassing %v, %d answered", a.bypassing, a.board.Bypassed.Load())
	}
	done(10 * time.Second)
	for range int(retryAfter/tick) + 1 {
		step()
	}
	if a.bypassing {
		t.Error("the agent gets no other chance")
	}
	if a.since == 0 {
		t.Error("that it was silent is forgotten before it answered")
	}
	a.board.Turns.Add(1)
	step()
	if a.since != 0 {
		t.Error("an agent that reads again is still on its way out")
	}
}

// An agent that stops right after it has read a question has told nobody of it. On a machine where nobody else asks that is seen all the same.
func TestAQuestionThatNobodyKnowsOf(t *testing.T) {
	r := newRig(t)
	a, step := r.a, r.serving()
	a.board.Armed.Store(1)
	for i := range 10 * restStrikes {
		if i%(restStrikes/4) == 0 {
			a.board.Beats.Add(1)
		}
		if step(); a.bypassing {
			t.Fatalf("an agent that is there, and that nobody asks, is taken for silent after %d looks", i)
		}
	}
	done := r.open(1)
	fds := r.read(1)
	defer closeAll(fds)
	for range restStrikes {
		step()
	}
	if !a.bypassing || a.board.Bypassed.Load() != 1 {
		t.Fatalf("bypassing %v, %d answered", a.bypassing, a.board.Bypassed.Load())
	}
	done(10 * time.Second)
	for range 2 * restStrikes {
		if step(); !a.bypassing {
			t.Fatal("an agent that does not move is believed to answer")
		}
	}
	a.board.Beats.Add(1)
	for range int(retryAfter/tick) + 1 {
		step()
	}
	if a.bypassing {
		t.Error("an agent that moves again is not let answer")
	}
}

func TestTheGroupsOfStackedFileSystemsAreLetGo(t *testing.T) {
	r := newRig(t)
	spare, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(r.a)
	if err := s.keep(ReleasePrefix+"x", spare); err != nil {
		t.Fatal(err)
	}
	kept := int(r.a.release.Load())
	if n := s.letGo(); n != 1 || r.a.release.Load() != -1 || len(s.names()) != 0 {
		t.Errorf("%d let go, release %d, kept %v", n, r.a.release.Load(), s.names())
	}
	if _, err := unix.FcntlInt(uintptr(kept), unix.F_GETFD, 0); err == nil {
		t.Error("the group is still open")
	}
}
