package keeper

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"bailey/internal/boottime"
)

// ReservedFrom to ReservedTo are the descriptor numbers that the answerer reads questions into. Every agent has them
// occupied from its start to its end.
const (
	ReservedFrom = 5
	ReservedTo   = 15
)

const (
	// tick is how often the answerer looks whether the agent answers, while there is something to answer.
	tick = 25 * time.Millisecond
	// restTick is how often it looks while nothing asks.
	restTick = 100 * time.Millisecond
	// strikes is how many looks in a row must find the same unread questions, or unmoved deadlines: 200 ms, the patience with an
	// agent that lives and is not stopped. On a machine that is out of processor time shorter ones take starving for hanging, and
	// let through what would have been refused.
	strikes = 8
	// restStrikes is how many looks in a row may find unmoved deadlines where nobody is known to wait: 2 s, four times what the agent
	// takes to move them. An agent that stops between reading a question and taking note of it leaves no other trace, until somebody
	// else asks.
	restStrikes = 80
	// retryAfter is how long the keeper answers before it leaves a question to a silent agent once more.
	retryAfter = 250 * time.Millisecond
	// sweepChunk is how many numbers are tried between two looks at what is unread: about a millisecond.
	sweepChunk = 4096
	// readBudget is how many questions are read and answered between two looks at the rest.
	readBudget = 256
)

// answerer watches the agent and answers in its place. Its thread waits for nobody and allocates nothing.
type answerer struct {
	board     *Board
	response  uint32 // the operator's default: FAN_ALLOW or FAN_DENY
	limit     int    // descriptor numbers that an agent can have
	killAfter time.Duration
	wakeFD    int
	notice    chan struct{} // holds one token when the rest should look

	agent   atomic.Int32 // pidfd of the agent that is watched; -1 when there is none
	died    atomic.Bool  // that agent has ended
	stopped atomic.Bool  // that agent was stopped by a signal
	ended   atomic.Bool
	thread  atomic.Int32
	swept   atomic.Bool // the numbers of the agent that died are all tried
	rounds  atomic.Uint64

	mu      sync.Mutex // held for each use of group and release; what else holds it never opens a file
	group   atomic.Int32
	release atomic.Int32

	// Of the answerer's thread.
	turns, beats         uint64
	unread, unanswered   int // strikes
	unmoved              int // the same, of the deadlines where nobody is known to wait
	looked               uint64
	since                uint64 // when the agent was first found silent
	until                uint64 // when it gets the chance to answer again
	sweepAt              int
	fds                  [3]unix.PollFd
	metadata             unix.FanotifyEventMetadata
	reply                unix.FanotifyResponse
	drained              [8]byte
	bypassing, heartbeat bool
	bypass               atomic.Bool // bypassing, for others
}

func newAnswerer(b *Board, deny bool, limit int, killAfter time.Duration) (*answerer, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	a := &answerer{board: b, response: unix.FAN_ALLOW, limit: limit, killAfter: killAfter, wakeFD: wake, notice: make(chan struct{}, 1)}
	if deny {
		a.response = unix.FAN_DENY
	}
	a.group.Store(-1)
	a.release.Store(-1)
	a.agent.Store(-1)
	a.sweepAt = limit
	a.swept.Store(true)
	return a, nil
}

// answers says which group's questions to answer, -1 for none. When it returns, the one before is not used any more.
func (a *answerer) answers(fd int) {
	a.mu.Lock()
	a.group.Store(int32(fd))
	a.mu.Unlock()
	a.wake()
}

// releases says which group to let go when the agent cannot answer, and closes the one before.
func (a *answerer) releases(fd int) {
	a.mu.Lock()
	old := a.release.Swap(int32(fd))
	if old >= 0 {
		_ = unix.Close(int(old))
	}
	a.mu.Unlock()
}

// watch says which agent is to be watched: its pidfd, which stays the caller's until watch is called again.
func (a *answerer) watch(pidfd int) {
	a.mu.Lock()
	a.agent.Store(int32(pidfd))
	a.died.Store(false)
	a.stopped.Store(false)
	a.mu.Unlock()
	a.wake()
}

// gone says that the agent that was watched has ended, if the answerer has not seen it yet; its pidfd is not used any more
// when it returns.
func (a *answerer) gone() {
	a.mu.Lock()
	if !a.died.Load() {
		a.died.Store(true)
		a.tookOver(true)
		a.board.agentGone()
	}
	a.agent.Store(-1)
	a.mu.Unlock()
	a.wake()
}

func (a *answerer) wake() { _, _ = unix.Write(a.wakeFD, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

func (a *answerer) end() {
	a.ended.Store(true)
	a.interrupt()
}

// interrupt is wake that also ends a read. The group does not block while the answerer reads it, unless the agent made it
// block at that very moment; then the answerer waits for a question inside read(2), which it would answer, but sees nothing
// else. It opens nothing and takes no lock.
func (a *answerer) interrupt() {
	a.wake()
	if g := a.group.Load(); g >= 0 && a.bypass.Load() {
		flags, _, _ := unix.RawSyscall(unix.SYS_FCNTL, uintptr(g), unix.F_GETFL, 0)
		_, _, _ = unix.RawSyscall(unix.SYS_FCNTL, uintptr(g), unix.F_SETFL, flags|unix.O_NONBLOCK)
	}
	if tid := a.thread.Load(); tid > 0 {
		_ = unix.Tgkill(os.Getpid(), int(tid), unix.SIGURG) // the runtime's own signal, which means nothing: look again
	}
}

// tell wakes whoever starts agents.
func (a *answerer) tell() {
	select {
	case a.notice <- struct{}{}:
	default:
	}
}

// run answers until end is called.
func (a *answerer) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	a.thread.Store(int32(unix.Gettid()))
	// This thread alone, and nothing that is started: on a machine that is out of processor time everybody waits for it.
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -20)
	for !a.ended.Load() {
		a.wait()
		a.mu.Lock()
		a.look(boottime.Now())
		a.mu.Unlock()
		a.rounds.Add(1)
	}
}

// wait sleeps until something may have to be done.
func (a *answerer) wait() {
	a.fds = [3]unix.PollFd{{Fd: int32(a.wakeFD), Events: unix.POLLIN}, {Fd: -1}, {Fd: -1}}
	if !a.died.Load() {
		a.fds[1] = unix.PollFd{Fd: a.agent.Load(), Events: unix.POLLIN}
	}
	timeout := restTick
	switch {
	case a.bypassing:
		a.fds[2] = unix.PollFd{Fd: a.group.Load(), Events: unix.POLLIN}
		timeout = tick
		if a.sweepAt < a.limit {
			timeout = 0
		}
	case a.board.Armed.Load() != 0:
		timeout = tick
	}
	poll(a.fds[:], timeout)
	if a.fds[0].Revents != 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_READ, uintptr(a.wakeFD), uintptr(unsafe.Pointer(&a.drained[0])), 8)
	}
}

// look decides who answers now and, if it is the keeper, does.
func (a *answerer) look(now uint64) {
	alive := a.agent.Load() >= 0 && !a.died.Load()
	if alive && a.fds[1].Revents != 0 && a.fds[1].Fd == a.agent.Load() {
		alive = false
		a.died.Store(true)
		a.tookOver(true)
		a.board.agentGone()
		a.tell()
	}
	a.beat(now)
	switch {
	case !alive, a.board.Serving.Load() == 0:
		a.until = 0
		a.tookOver(false)
	case a.stopped.Load(), !a.heartbeat:
		a.silent(now)
	case a.bypassing && now >= a.until:
		a.handBack()
	}
	if a.bypassing {
		a.answerAll()
	}
}

// silent handles an agent that lives and does not answer: its questions are answered, it is given the chance to answer
// again after a while, and it is ended when it never does.
func (a *answerer) silent(now uint64) {
	if a.since == 0 {
		a.since = now
	}
	a.until = now
	if !a.stopped.Load() {
		a.until = now + uint64(retryAfter)
	}
	if !a.bypassing {
		a.tookOver(true)
		a.tell()
	}
	// A stacked group cannot be answered from here: those who wait in it wait for the agent, or for its end.
	if now-a.since > uint64(a.killAfter) || a.readable(a.release.Load()) {
		a.kill()
	}
}

// beat looks whether the agent reads and answers. It is judged at most once a tick.
func (a *answerer) beat(now uint64) {
	since := now - a.looked
	if since < uint64(tick)*4/5 {
		return
	}
	a.looked = now
	armed := a.board.Armed.Load() != 0
	late := since > uint64(2*tick) && armed
	if late && a.unread+a.unanswered > 0 {
		return // this thread got no processor time either: that the agent got none says nothing
	}
	turns, beats := a.board.Turns.Load(), a.board.Beats.Load()
	a.unread = strike(a.unread, turns == a.turns && a.readable(a.group.Load()))
	a.unanswered = strike(a.unanswered, beats == a.beats && a.board.Unanswered.Load() > 0)
	if moved := beats != a.beats; moved || !late {
		a.unmoved = strike(a.unmoved, !moved && armed)
	}
	if (turns != a.turns || beats != a.beats) && !a.stopped.Load() {
		a.since = 0
	}
	a.turns, a.beats = turns, beats
	a.heartbeat = a.unread < strikes && a.unanswered < strikes && a.unmoved < restStrikes
}

func strike(n int, again bool) int {
	if !again {
		return 0
	}
	return min(n+1, restStrikes)
}

// tookOver begins a bypass. With sweep, whatever the agent has read is answered too.
func (a *answerer) tookOver(sweep bool) {
	if sweep {
		a.sweepAt = 0
		a.swept.Store(false)
	}
	if a.bypassing {
		return
	}
	a.bypassing = true
	a.bypass.Store(true)
	a.board.Bypassing.Store(1) // first: the agent makes the group block only without it
	a.board.Bypasses.Add(1)
	if g := a.group.Load(); g >= 0 {
		flags, _, _ := unix.RawSyscall(unix.SYS_FCNTL, uintptr(g), unix.F_GETFL, 0)
		_, _, _ = unix.RawSyscall(unix.SYS_FCNTL, uintptr(g), unix.F_SETFL, flags|unix.O_NONBLOCK)
	}
}

// handBack ends a bypass: the agent answers again, or has the chance to.
func (a *answerer) handBack() {
	a.bypassing, a.unread = false, 0
	a.bypass.Store(false)
	a.sweepAt = a.limit
	a.swept.Store(true)
	a.board.Bypassing.Store(0) // the agent makes the group block again by itself
	a.tell()
}

// kill ends an agent that does not answer; poll tells when it is gone.
func (a *answerer) kill() {
	if a.died.Load() {
		return
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_PIDFD_SEND_SIGNAL, uintptr(a.agent.Load()), uintptr(unix.SIGKILL), 0, 0, 0, 0)
	if errno == 0 {
		a.board.Kills.Add(1)
	}
	a.since = 0
}

// answerAll answers a part of what waits: some of what is read, then some of what is not.
func (a *answerer) answerAll() {
	begin := boottime.Now()
	group := a.group.Load()
	if group < 0 {
		a.sweepAt = a.limit
		a.swept.Store(true)
		return
	}
	sweeping := a.sweepAt < a.limit
	if sweeping {
		a.sweep(group)
	}
	for range readBudget {
		if !a.one(group) {
			break
		}
	}
	if sweeping && a.sweepAt >= a.limit {
		a.swept.Store(true)
		a.tell()
	}
	if gap := boottime.Now() - begin; gap > a.board.LongestGap.Load() {
		a.board.LongestGap.Store(gap)
	}
}

// sweep answers what the agent has read: each number of a chunk that names a question.
func (a *answerer) sweep(group int32) {
	end := min(a.sweepAt+sweepChunk, a.limit)
	for ; a.sweepAt < end; a.sweepAt++ {
		if a.respond(group, int32(a.sweepAt)) {
			a.board.Bypassed.Add(1)
		}
	}
}

// one reads one question that nobody has read and answers it. It reports false when there was none.
func (a *answerer) one(group int32) bool {
	m := &a.metadata
	n, _, errno := unix.Syscall(unix.SYS_READ, uintptr(group), uintptr(unsafe.Pointer(m)), unsafe.Sizeof(*m))
	switch {
	case errno == unix.EAGAIN:
		return false
	case errno != 0: // the kernel could not open the file for us and has answered by itself, or was interrupted
		return errno != unix.EBADF
	case n < unsafe.Sizeof(*m) || m.Fd < 0:
		return true
	}
	if m.Mask&(unix.FAN_OPEN_PERM|unix.FAN_OPEN_EXEC_PERM) != 0 && a.respond(group, m.Fd) {
		a.board.Bypassed.Add(1)
	}
	_, _, _ = unix.Syscall(unix.SYS_CLOSE, uintptr(m.Fd), 0, 0)
	return true
}

// respond answers the question with this number and reports whether one waited.
func (a *answerer) respond(group, fd int32) bool {
	a.reply = unix.FanotifyResponse{Fd: fd, Response: a.response}
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(group), uintptr(unsafe.Pointer(&a.reply)), unsafe.Sizeof(a.reply))
	return errno == 0
}

func (a *answerer) readable(fd int32) bool {
	if fd < 0 {
		return false
	}
	one := [1]unix.PollFd{{Fd: fd, Events: unix.POLLIN}}
	poll(one[:], 0)
	return one[0].Revents&unix.POLLIN != 0
}

// poll waits for the descriptors; negative ones are passed over.
func poll(fds []unix.PollFd, timeout time.Duration) {
	ts := unix.NsecToTimespec(int64(timeout))
	_, _, _ = unix.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
}
