package process

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/internal/boottime"
)

const (
	// overlapWindow is how far apart in time the records are that two generations' programs make of one exec.
	overlapWindow = 10 * time.Millisecond
	// overlapLeast is how long both send: more than twice the window, so that an exec that only the old one has and one that
	// only the new one has cannot be taken for the same.
	overlapLeast = 3 * overlapWindow
	// overlapPatience is how long the new programs may take to see something that the old ones see.
	overlapPatience = 2 * time.Second
	// overlapRest is how long after the overlap nothing of it can still come.
	overlapRest = 100 * time.Millisecond
)

var errSilent = errors.New("the new BPF programs do not see what the replaced ones see")

// handOver replaces a generation by the next. The new programs, which are attached, begin to send; only when they are seen to
// work do the old ones stop and are they detached. What the old ones sent is emitted first; what both sent in between is
// remembered and emitted once. Killed at any point, the next reader goes on from what the ledger says: the old ring's bytes
// stay until the overlap has been read from the new one.
func (s *Sensor) handOver(old, next *kernel, wanted bool) error {
	s.overlap = old.overlap
	if old.vars.wants() {
		if wanted && !next.ledger.overlaps(old) {
			// Nearly empty when both send, so that it does not overflow meanwhile.
			if err := s.drainTo(old, old.ring.end()); err != nil {
				return err
			}
			next.ledger.openOverlap(old)
		}
		if err := s.switchOver(old, next, wanted); err != nil {
			return err
		}
	}
	if next.ledger.overlaps(old) {
		var err error
		if next.overlap, err = old.remember(next.ledger.fromAt, next.ledger.overlapTo); err != nil {
			s.cfg.Log.Warn("process events may be said twice", "err", err)
		}
	}
	if next.ledger.authority == 0 {
		next.ledger.authority = boottime.Now()
	}
	return errors.Join(old.unlink(s.pins.dir), s.drainTo(old, old.ring.end()))
}

// resumeHandOvers ends overlaps that a sensor before began and was killed in: their rings fill meanwhile.
func (s *Sensor) resumeHandOvers(chain []*kernel) error {
	for i := range len(chain) - 1 {
		if old, next := chain[i], chain[i+1]; next.ledger.overlaps(old) {
			if err := s.switchOver(old, next, next.vars.wants() || old.vars.wants()); err != nil {
				return err
			}
		}
	}
	return nil
}

// switchOver has the next generation send, and the old one no longer.
func (s *Sensor) switchOver(old, next *kernel, wanted bool) error {
	if !old.vars.wants() && next.ledger.overlaps(old) && next.ledger.overlapTo != 0 {
		synchronize() // it was done, perhaps just now
		return nil
	}
	before, fired := old.seen(), next.seen()
	if wanted {
		next.vars.want(true)
		synchronize()
		for until := time.Now().Add(overlapPatience); ; {
			time.Sleep(overlapWindow) //nolint:forbidigo // both must send for a while
			if boottime.Now()-next.ledger.overlapFrom >= uint64(overlapLeast) && (next.seen() != fired || old.seen() == before) {
				break
			}
			if time.Now().After(until) {
				return errSilent
			}
		}
	}
	if old.vars.wants() || next.ledger.overlapTo == 0 {
		next.ledger.overlapTo = boottime.Now()
		old.vars.want(false)
	}
	synchronize()
	return nil
}

// seen counts what a generation's programs have been run for and send.
func (k *kernel) seen() uint64 {
	c := k.vars.totals()
	return c.Execs + c.Forks + c.Exits
}

// synchronize waits until no BPF program runs that began before.
func synchronize() {
	// MEMBARRIER_CMD_GLOBAL is synchronize_rcu. It does nothing on one processor, and is refused where some have no tick.
	const global = 1
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0)
	time.Sleep(overlapWindow) //nolint:forbidigo // the kernel is waited for
}

// overlaps says whether this generation began to replace old and has not finished.
func (l *ledger) overlaps(old *kernel) bool {
	return l.from == old.ledger.created && l.overlapFrom != 0
}

// openOverlap writes down that this generation, from now on, replaces old. Last what makes it hold.
func (l *ledger) openOverlap(old *kernel) {
	l.overlapFrom, l.overlapTo = 0, 0
	l.from, l.fromAt, l.fromLost = old.ledger.created, old.ring.at(), old.lost()
	l.authority = boottime.Now()
	l.overlapFrom = l.authority
}

// closeOverlap forgets it.
func (l *ledger) closeOverlap() { l.overlapFrom, l.overlapTo, l.from, l.fromAt = 0, 0, 0, 0 }

// overlap is what a replaced generation reported while the next one did too. It belongs to one goroutine.
type overlap struct {
	forks, exits map[event.ProcessKey]bool
	execs        map[execution][]uint64 // when
	until        uint64                 // records after it are not in it
}

// execution is what is the same in two records of one exec.
type execution struct {
	key             event.ProcessKey
	dev, ino, ctime uint64
}

func executionOf(r *record) execution {
	return execution{r.who.key, r.image.file.Dev, r.image.file.Ino, uint64(r.image.file.CTime)}
}

// remember returns what is in a ring from a position on; its programs must send no more. The kernel has not written over it.
func (k *kernel) remember(from, until uint64) (*overlap, error) {
	o := &overlap{
		forks: make(map[event.ProcessKey]bool), exits: make(map[event.ProcessKey]bool),
		execs: make(map[execution][]uint64), until: until + uint64(overlapWindow),
	}
	if k.ledger.records != recordFormat {
		return o, nil
	}
	var r record
	err := k.ring.walk(from, k.ring.end(), func(sample []byte) {
		if r.decode(sample) != nil {
			return
		}
		switch r.kind {
		case recordFork:
			o.forks[r.child.key] = true
		case recordExit:
			o.exits[r.who.key] = true
		case recordExec:
			e := executionOf(&r)
			o.execs[e] = append(o.execs[e], r.time)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read a replaced ring again: %w", err)
	}
	return o, nil
}

// has says whether the replaced programs reported a record's event too.
func (o *overlap) has(r *record) bool {
	if o == nil || r.time > o.until {
		return false
	}
	switch r.kind {
	case recordFork:
		return o.forks[r.child.key]
	case recordExit:
		return o.exits[r.who.key]
	case recordExec:
		e := executionOf(r)
		for i, t := range o.execs[e] {
			if max(t, r.time)-min(t, r.time) <= uint64(overlapWindow) {
				o.execs[e] = append(o.execs[e][:i], o.execs[e][i+1:]...)
				return true
			}
		}
	}
	return false
}

// finished says whether nothing of a replaced generation is needed any more.
func (k *kernel) finished(next *kernel) bool {
	if k.vars.wants() || k.ring.at() != k.ring.end() {
		return false
	}
	if !next.ledger.overlaps(k) {
		return true
	}
	until := next.ledger.overlapTo + uint64(overlapWindow)
	if next.ledger.overlapTo == 0 {
		return false
	}
	now := boottime.Now()
	sample, _, err := next.ring.first(next.ring.end())
	if err != nil || sample == nil {
		return err == nil && now > until+uint64(overlapRest)
	}
	var r record
	return r.decode(sample) == nil && r.time > until+uint64(overlapRest)
}

// dropFinished removes the pins of replaced generations, oldest first, that a sensor before had no time to remove, and
// returns the others. Only with the directory of pins locked.
func (s *Sensor) dropFinished(chain []*kernel) []*kernel {
	for len(chain) > 1 && chain[0].finished(chain[1]) {
		dropped, err := s.pins.drop(chain[0].pin)
		if err != nil {
			s.cfg.Log.Warn("replaced BPF programs stay pinned", "err", err)
		}
		if !dropped {
			break
		}
		if err := chain[0].letGo(); err != nil {
			s.cfg.Log.Warn("replaced BPF programs stay open", "err", err)
		}
		chain = chain[1:]
	}
	return chain
}

// retire removes the generations that were replaced, once nothing of what they reported too can still come. emptied is
// when the ring was last found empty. What another process still has open is tried again.
func (s *Sensor) retire(emptied uint64) {
	if len(s.older) == 0 || s.failed != nil || s.kernel.overlap != nil && emptied < s.kernel.overlap.until+uint64(overlapRest) {
		return
	}
	s.kernel.overlap, s.overlap = nil, nil
	s.kernel.ledger.closeOverlap()
	unlock, err := s.pins.setup()
	if err != nil {
		s.cfg.Log.Warn("replaced BPF programs stay pinned", "err", err)
		return
	}
	defer unlock()
	var left []*kernel
	for _, k := range s.older {
		dropped, err := s.pins.drop(k.pin)
		if err != nil {
			s.cfg.Log.Warn("replaced BPF programs stay pinned", "err", err)
		} else if !dropped {
			left = append(left, k)
			continue
		}
		if err := k.letGo(); err != nil {
			s.cfg.Log.Warn("replaced BPF programs stay open", "err", err)
		}
	}
	s.older = left
}
