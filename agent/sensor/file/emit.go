package file

import (
	"golang.org/x/sys/unix"

	"bailey/agent/event"
)

// kindOfBit maps the bits of one merged fanotify event to kinds, in the order in which they can have happened.
var kindOfBit = [...]struct {
	bit  uint64
	kind event.Kind
}{
	{unix.FAN_CREATE, event.Create},
	{unix.FAN_ATTRIB, event.Attrib},
	{unix.FAN_CLOSE_WRITE, event.CloseWrite},
	{unix.FAN_RENAME, event.Rename},
	{unix.FAN_MOVED_FROM, event.Unlink}, // unless its MOVED_TO comes
	{unix.FAN_MOVED_TO, event.Rename},
	{unix.FAN_DELETE, event.Unlink},
}

// emit tells of c, once for each of its bits: the kernel merges events on the same object that nobody has read yet.
func (n *notifier) emit(c *change) {
	want := n.s.mounts.wantedEvents()
	var proc *event.Process
	filled := false
	var f event.File
	for _, k := range kindOfBit {
		if c.mask&k.bit == 0 {
			continue
		}
		if k.bit != unix.FAN_MOVED_FROM && !want.Has(k.kind) || k.bit == unix.FAN_MOVED_FROM && !want.Has(event.Rename) && !want.Has(event.Unlink) {
			continue
		}
		if !filled {
			n.resolve.fill(&f, c.entry, c.object)
			proc, filled = n.process(c), true
		}
		n.emitKind(c, k.bit, k.kind, f, proc, want)
	}
}

func (n *notifier) emitKind(c *change, bit uint64, kind event.Kind, f event.File, proc *event.Process, want event.KindSet) {
	if kind == event.Unlink {
		f.Deleted = true
	}
	e := &event.Event{Kind: kind, Time: n.now, Process: proc, File: &event.FileDetail{File: f}}
	switch bit {
	case unix.FAN_RENAME:
		e.File.From = n.resolve.pathOf(c.old)
	case unix.FAN_MOVED_FROM:
		n.flushMove(c.pid)
		if len(n.from) >= maxMoves {
			n.flushMoves(n.now)
		}
		n.from[c.pid] = moved{path: f.Path, c: e, at: n.now}
		return
	case unix.FAN_MOVED_TO:
		if m, ok := n.from[c.pid]; ok {
			e.File.From = m.path
			delete(n.from, c.pid)
		}
	default:
		n.flushMove(c.pid)
	}
	n.send(e)
}

func (n *notifier) send(e *event.Event) {
	if e.File.File.Path == "" {
		n.s.count.eventsUnnamed.Add(1)
		if e.File.File.Ino == 0 { // neither name nor identity: the last unlink's change of the link count, read too late
			return
		}
	}
	n.s.count.events.Add(1)
	n.s.cfg.Emit(e)
}

// maxMoves bounds the renames of which only the first half was seen.
const maxMoves = 64

// flushMove tells of a file that was moved to where nobody watches: it is gone from here.
func (n *notifier) flushMove(pid int32) {
	m, ok := n.from[pid]
	if !ok {
		return
	}
	delete(n.from, pid)
	if n.s.mounts.wantedEvents().Has(event.Unlink) {
		n.send(m.c)
	}
}

// flushMoves gives up on the second halves of the moves that were read until then.
func (n *notifier) flushMoves(until uint64) {
	for pid, m := range n.from {
		if m.at <= until {
			n.flushMove(pid)
		}
	}
}

// process finds who did it. The event may have waited: where the kernel says that the process has ended and its pid has a
// new owner, nobody is named rather than the wrong one.
func (n *notifier) process(c *change) *event.Process {
	if c.pid <= 0 {
		return nil
	}
	if c.hasPidfd && c.pidfd < 0 && unix.Kill(int(c.pid), 0) != unix.ESRCH {
		return nil
	}
	p := n.s.cfg.Processes.Lookup(uint32(c.pid))
	if p == nil && (!c.hasPidfd || c.pidfd >= 0) {
		p, _ = n.s.cfg.Processes.Load(uint32(c.pid))
	}
	return p
}
