package file

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
)

// pending is one permission event between the kernel and its verdict: the question, and what the sensor remembers for
// answering it. It is the question's Answerer. pendings live in a fixed slab, so their number bounds what is in flight.
type pending struct {
	sensor *Sensor
	group  int // the fanotify group that asks
	q      event.Question
	resp   unix.FanotifyResponse
	stat   unix.Statx_t // as read before asking
	again  unix.Statx_t // as read after marking
	link   [32]byte

	generation uint64 // of the cache, when the event was read
	closes     uint32 // of the file's stripe, when the event was read
	wall       int64  // wall clock before the file was looked at, for comparison with its ctime
	early      bool   // the descriptor was closed before answering

	next atomic.Uint32 // free list: index+1 of the next free pending
	self uint32
}

var _ event.Answerer = (*pending)(nil)

// Answer hands d to the kernel, then, where d allows it, tells the kernel not to ask again about this file.
func (p *pending) Answer(_ *event.Question, d event.Decision) {
	s := p.sensor
	p.resp.Response = unix.FAN_ALLOW
	if !d.Allow {
		p.resp.Response = unix.FAN_DENY
	}
	errno := sysRespond(p.group, &p.resp)
	s.countAnswer(d, errno)
	if d.Allow && d.CacheFile && errno == 0 && !p.early {
		s.cache.verdict(p)
	}
	// Last: Run closes the group once nothing is unanswered, and the cache uses the group too.
	s.count.unanswered.Add(-1)
}

func (s *Sensor) countAnswer(d event.Decision, errno unix.Errno) {
	c := &s.count
	switch errno {
	case 0:
		s.pulse.Answered.Add(1)
	case unix.ENOENT:
		c.late.Add(1)
	default:
		c.answerErrors.Add(1)
	}
	if d.Allow {
		c.allowed.Add(1)
	} else {
		c.denied.Add(1)
	}
	if int(d.Reason) < reasonCount {
		c.answered[d.Reason].Add(1)
	}
}

// Release closes the descriptor and recycles the question.
func (p *pending) Release(*event.Question) {
	s := p.sensor
	if !p.early {
		sysClose(int(p.resp.Fd))
	}
	s.count.pending.Add(-1)
	if p.self != 0 { // 0 is a reader's own
		s.slab.put(p)
	}
}

// slab is a fixed set of pendings with a lock-free free list. Safe for concurrent use; being lock-free
// matters because the readers use it.
type slab struct {
	all  []pending
	head atomic.Uint64 // tag<<32 | index+1; the tag keeps a recycled head from being mistaken for the old one
}

func newSlab(s *Sensor, n int) *slab {
	l := &slab{all: make([]pending, n)}
	for i := range l.all {
		p := &l.all[i]
		p.sensor, p.self = s, uint32(i)+1
		l.put(p)
	}
	return l
}

func (l *slab) get() *pending {
	for {
		old := l.head.Load()
		i := uint32(old)
		if i == 0 {
			return nil
		}
		p := &l.all[i-1]
		if l.head.CompareAndSwap(old, (old>>32+1)<<32|uint64(p.next.Load())) {
			return p
		}
	}
}

func (l *slab) put(p *pending) {
	for {
		old := l.head.Load()
		p.next.Store(uint32(old))
		if l.head.CompareAndSwap(old, (old>>32+1)<<32|uint64(p.self)) {
			return
		}
	}
}
