package file

import (
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/internal/boottime"
	"bailey/internal/ownthread"
)

// readBatch bounds the events, and so the descriptors, that one read takes from the kernel.
const readBatch = 32

const metadataSize = int(unsafe.Sizeof(unix.FanotifyEventMetadata{}))

// reader is the one thread that takes questions from one group. It allocates only for paths it has not seen lately.
type reader struct {
	s     *Sensor
	group int
	buf   [readBatch]unix.FanotifyEventMetadata
	path  [unix.PathMax + 1]byte
	paths interner
	spare pending       // for an event beyond the slab
	turn  atomic.Uint64 // odd while the reader is inside read(2)

	outside bool // it waits in a poll; of the goroutine that watches readers
}

func newReader(s *Sensor, group int) *reader {
	r := &reader{s: s, group: group}
	r.spare.sensor = s
	return r
}

// run reads until the sensor stops. It occupies an operating system thread: Go's poller would put a goroutine switch, and
// whatever else is runnable, between the kernel and the answer. It waits inside read(2), or in a poll where the group does
// not block.
func (r *reader) run() {
	thread := ownthread.Enter()
	defer thread.Leave()
	fds := []unix.PollFd{{Fd: int32(r.group), Events: unix.POLLIN}, {Fd: int32(r.s.wake), Events: unix.POLLIN}}
	for !r.s.stopping.Load() {
		thread.Yield()
		if !r.drain() {
			_ = sysPoll(fds, -1)
		}
	}
}

// drain makes one read and handles what it brought. It reports false when there was nothing.
func (r *reader) drain() bool {
	s := r.s
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&r.buf[0])), readBatch*metadataSize)
	r.turn.Add(1)
	n, errno := sysRead(r.group, raw)
	r.turn.Add(1)
	s.pulse.Turns.Add(1)
	switch errno {
	case 0:
		r.batch(n)
	case unix.EAGAIN:
		return false
	case unix.EINTR:
	case unix.EMFILE, unix.ENFILE:
		// The kernel has refused this opener already. Make room, so that it is the only one.
		s.count.emfile.Add(1)
		s.head.relieve()
		s.alarm(alarmDescriptors)
	default:
		s.count.readErrors.Add(1)
	}
	return true
}

func (r *reader) batch(n int) {
	now := boottime.Now()
	for i := range n / metadataSize {
		m := &r.buf[i]
		if m.Vers != unix.FANOTIFY_METADATA_VERSION || int(m.Event_len) != metadataSize {
			// Checked by New on this very kernel; a record of another length would have shifted all that follow.
			r.s.count.unknownKind.Add(1)
			return
		}
		r.one(m, now)
	}
}

// one turns one event into one answered or asked question.
func (r *reader) one(m *unix.FanotifyEventMetadata, now uint64) {
	s := r.s
	if m.Mask&unix.FAN_Q_OVERFLOW != 0 {
		s.count.overflow.Add(1)
		s.alarm(alarmOverflow)
		return
	}
	if m.Fd < 0 {
		if !s.stopping.Load() {
			s.count.unknownKind.Add(1)
		}
		return
	}
	var kind event.Kind
	switch {
	case m.Mask&unix.FAN_OPEN_EXEC_PERM != 0:
		kind = event.Exec
	case m.Mask&unix.FAN_OPEN_PERM != 0:
		kind = event.Open
	default:
		if !s.stopping.Load() { // else it is the doorbell
			s.count.unknownKind.Add(1)
		}
		sysClose(int(m.Fd))
		return
	}
	p, overloaded := r.take(m, kind, now)
	if r.own(p) {
		return
	}
	if overloaded {
		s.count.overloaded.Add(1)
		p.finish(event.ByOverload)
		return
	}
	if s.head.low(int(m.Fd)) {
		s.count.nearlyFull.Add(1)
		s.alarm(alarmDescriptors)
		p.finish(event.ByOverload)
		return
	}
	r.ask(p)
}

// take makes the question's object. With every one in use it is the reader's spare, which must be finished at once.
func (r *reader) take(m *unix.FanotifyEventMetadata, kind event.Kind, now uint64) (p *pending, overloaded bool) {
	s := r.s
	p = s.slab.get()
	if p == nil {
		p, overloaded = &r.spare, true
	}
	p.group = r.group
	p.q.Reset()
	p.q.Source = p
	p.q.ID = s.lastID.Add(1)
	p.q.Kind = kind
	p.q.Time = now
	p.q.FD = int(m.Fd)
	p.q.PID = uint32(m.Pid)
	p.resp.Fd = m.Fd
	p.early = false
	if high := uint32(m.Fd); high > s.pulse.Highest.Load() {
		s.pulse.Highest.Store(high)
	}
	s.count.read.Add(1)
	if kind == event.Exec {
		s.count.execs.Add(1)
	}
	s.count.pending.Add(1)
	s.count.unanswered.Add(1)
	return p, overloaded
}

// own answers at once for whoever the answer may depend on.
func (r *reader) own(p *pending) bool {
	s := r.s
	pid := p.q.PID
	if pid == 0 {
		return false
	}
	if !s.cfg.Identity.Platform(pid) && (s.cfg.Exempt == nil || !s.cfg.Exempt(pid)) {
		return false
	}
	s.count.exempt.Add(1)
	p.finish(event.ByIdentity)
	return true
}

// ask completes the question and hands it on.
func (r *reader) ask(p *pending) {
	s := r.s
	p.generation = s.cache.generation.Load()
	p.wall = time.Now().UnixNano()
	if errno := sysStat(p.q.FD, nul[:], &p.stat); errno != 0 {
		p.finish(event.ByIncomplete)
		return
	}
	if p.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		// The kernel opened a FIFO or a device for us. Close it before the opener goes on, so that it never meets our
		// descriptor: a FIFO's writer would take us for its reader.
		sysClose(p.q.FD)
		p.early = true
		s.count.unscoped.Add(1)
		p.finish(event.ByNobody)
		return
	}
	fillFile(&p.q.File, &p.stat)
	p.closes = s.cache.stripe(p.q.File.Dev, p.q.File.Ino).Load()
	r.name(p)
	if p.q.Kind == event.Open && !s.scope.Load().contains(p.q.File.Path) {
		s.count.unscoped.Add(1)
		if p.stat.Nlink == 1 {
			p.q.Hold()
			p.finish(event.ByNobody)
			s.cache.unscoped(p, r)
			p.q.Release()
			return
		}
		p.finish(event.ByNobody)
		return
	}
	p.q.Unwatched = !s.cache.watched(p)
	p.q.NeverAsk = p.q.PID != 0 && s.cfg.Identity.NeverAsk(p.q.PID)
	p.q.Process = nil
	if p.q.PID != 0 {
		p.q.Process = s.cfg.Processes.Lookup(p.q.PID)
	}
	if p.q.Process == nil {
		s.load(p)
		return
	}
	s.ask(p)
}

// name reads the path of the question's file.
func (r *reader) name(p *pending) {
	n, errno := sysReadlink(fdLink(&p.link, p.q.FD), r.path[:])
	if errno != 0 {
		return
	}
	p.q.File.Path, p.q.File.Deleted = cutDeleted(r.paths.intern(r.path[:n]), p.stat.Nlink)
}

// ask hands a complete question to the verdict engine, which owns it from here on.
func (s *Sensor) ask(p *pending) {
	if p.q.Process.Kernel {
		s.count.exempt.Add(1)
		p.finish(event.ByIdentity)
		return
	}
	s.count.asked.Add(1)
	s.cfg.Ask(&p.q)
}

// finish allows the opener for the given reason and gives the question back.
func (p *pending) finish(why event.Reason) {
	p.q.Answer(event.Decision{Allow: true, Reason: why})
	p.q.Release()
}

// nul is the empty path for calls that take a descriptor and AT_EMPTY_PATH.
var nul = [1]byte{}

const deletedSuffix = " (deleted)"

// cutDeleted takes the kernel's mark off the path of a file without a name. A file may really be called that: the link
// count tells.
func cutDeleted(path string, links uint32) (string, bool) {
	if links != 0 {
		return path, false
	}
	return strings.TrimSuffix(path, deletedSuffix), true
}

func fillFile(f *event.File, st *unix.Statx_t) {
	f.Dev = unix.Mkdev(st.Dev_major, st.Dev_minor)
	f.Ino = st.Ino
	f.CTime = nanos(st.Ctime)
	f.MTime = nanos(st.Mtime)
	f.Size = int64(st.Size)
	f.Mode = uint32(st.Mode)
	f.UID = st.Uid
	f.GID = st.Gid
}

func nanos(t unix.StatxTimestamp) int64 { return t.Sec*1_000_000_000 + int64(t.Nsec) }
