package file

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/internal/boottime"
)

// notifier reads the notify group: it emits file events, and drops cached verdicts whose file was written or moved.
type notifier struct {
	s       *Sensor
	resolve *resolver
	buf     [64 << 10]byte
	now     uint64
	from    map[int32]moved // MOVED_FROM waiting for its MOVED_TO, by process; only without FAN_RENAME
}

type moved struct {
	path string
	c    *event.Event
	at   uint64 // when it was read
}

// moveLinger is how long the second half of a rename is waited for. The kernel queues the halves one after the other in the
// same system call, but a reader that is quick, or a renamer that is preempted, comes in between.
const moveLinger = 50 * time.Millisecond

func newNotifier(s *Sensor) *notifier {
	return &notifier{s: s, resolve: newResolver(s), from: make(map[int32]moved)}
}

// run reads until the sensor stops. It has a thread of its own so that dropping a cached verdict waits for no other
// goroutine.
func (n *notifier) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer func() { n.resolve.closeRoots(time.Time{}) }()
	s := n.s
	fds := []unix.PollFd{{Fd: int32(s.events.fd), Events: unix.POLLIN}, {Fd: int32(s.wake), Events: unix.POLLIN}}
	for !s.stopping.Load() {
		size, errno := sysRead(s.events.fd, n.buf[:])
		switch errno {
		case 0:
			n.batch(n.buf[:size])
		case unix.EAGAIN:
			n.idle(fds)
		case unix.EINTR:
		default:
			// EMFILE: no descriptor for a pidfd. The event is lost, and what it would have invalidated with it.
			n.lost()
		}
	}
}

// idle waits for events, and gives back what was kept for the last ones when none come.
func (n *notifier) idle(fds []unix.PollFd) {
	timeout := -1
	if len(n.resolve.roots) > 0 {
		timeout = int(rootLinger / time.Millisecond)
		n.resolve.closeRoots(time.Now().Add(-rootLinger))
	}
	if len(n.from) > 0 {
		n.flushMoves(boottime.Now() - uint64(moveLinger))
		timeout = int(moveLinger / time.Millisecond)
	}
	_ = sysPoll(fds, timeout)
}

func (n *notifier) batch(b []byte) {
	n.now = boottime.Now()
	for len(b) > 0 {
		c, err := parseChange(b)
		if err != nil {
			n.s.count.eventsUnparsed.Add(1)
			if c.length == 0 {
				return
			}
		} else {
			n.one(&c)
		}
		if c.pidfd >= 0 {
			sysClose(int(c.pidfd))
		}
		b = b[c.length:]
	}
}

// lost handles an overflow: the events are gone, so every cached verdict may be stale.
func (n *notifier) lost() {
	n.s.count.eventsLost.Add(1)
	n.s.cache.lost()
	n.s.alarm(alarmEvents)
}

func (n *notifier) one(c *change) {
	if c.mask&unix.FAN_Q_OVERFLOW != 0 {
		n.lost()
		return
	}
	n.invalidate(c)
	if !n.s.mounts.wantsEvents() {
		return
	}
	if c.pid > 0 && n.s.cfg.Identity.Platform(uint32(c.pid)) {
		n.s.count.eventsOwn.Add(1)
		return
	}
	n.emit(c)
}

// invalidate drops the cached verdict of a file that a writer closed, and the ignore marks of what came into the open scope.
func (n *notifier) invalidate(c *change) {
	s := n.s
	if !s.cache.enabled {
		return
	}
	const arrived = unix.FAN_CREATE | unix.FAN_MOVED_TO | unix.FAN_RENAME
	switch {
	case c.mask&unix.FAN_CLOSE_WRITE != 0:
		n.drop(c.object)
	case c.mask&arrived != 0 && s.count.ignored.Load() > 0:
		// A directory takes all that is below it along.
		if c.mask&unix.FAN_ONDIR != 0 {
			if c.mask&unix.FAN_CREATE == 0 {
				_ = s.cache.flush()
			}
			return
		}
		if len(c.object.handle) == 0 { // before 5.17 the event does not say which object it was
			n.dropEntry(c.entry)
			return
		}
		n.drop(c.object)
	}
}

func (n *notifier) drop(o object) {
	fd := n.resolve.open(o)
	if fd < 0 {
		// Gone, then nobody can open it; or out of reach, then only dropping everything is safe.
		if n.resolve.root(o.fsid) < 0 {
			n.s.cache.lost()
		}
		return
	}
	st := &n.resolve.stat
	if sysStat(fd, nul[:], st) == 0 {
		n.s.cache.drop(fd, unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino)
	}
	sysClose(fd)
}

func (n *notifier) dropEntry(e named) {
	dir := n.resolve.open(e.dir)
	if dir < 0 {
		return
	}
	defer sysClose(dir)
	fd, err := unix.Openat(dir, string(e.name), unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer sysClose(fd)
	st := &n.resolve.stat
	if sysStat(fd, nul[:], st) == 0 {
		n.s.cache.drop(fd, unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino)
	}
}
