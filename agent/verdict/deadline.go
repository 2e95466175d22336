package verdict

import (
	"context"
	"sync"
	"time"
)

// deadlines is a heap of the slots that must be looked at, earliest first. A slot is in it at most once. It leaves the heap
// only when its time comes: a question that is answered early leaves its entry to the slot's next question, which is due
// later, so that asking and answering hardly ever touch the heap. Safe for concurrent use.
type deadlines struct {
	mu   sync.Mutex
	heap []due
	pos  []int32 // by slot; -1 when not in the heap
	next uint64  // what the runner sleeps for, 0 for nothing
	wake chan struct{}
}

type due struct {
	at   uint64
	slot int32
}

func (d *deadlines) init(size int) {
	d.heap = make([]due, 0, size)
	d.pos = make([]int32, size)
	for i := range d.pos {
		d.pos[i] = -1
	}
	d.wake = make(chan struct{}, 1)
}

// set puts slot into the heap or moves it forward.
func (d *deadlines) set(slot int32, at uint64) {
	d.mu.Lock()
	i := int(d.pos[slot])
	if i < 0 {
		i = len(d.heap)
		d.heap = append(d.heap, due{})
	}
	d.up(i, due{at: at, slot: slot})
	early := d.next == 0 || at < d.next
	if early {
		d.next = at
	}
	d.mu.Unlock()
	if early {
		d.kick()
	}
}

func (d *deadlines) kick() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// pop takes the first slot that is due at now; otherwise it returns when the next one is, 0 for never.
func (d *deadlines) pop(now uint64) (slot int32, next uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.heap) == 0 {
		d.next = 0
		return noSlot, 0
	}
	top := d.heap[0]
	if top.at > now {
		d.next = top.at
		return noSlot, top.at
	}
	d.pos[top.slot] = -1
	last := d.heap[len(d.heap)-1]
	d.heap = d.heap[:len(d.heap)-1]
	if len(d.heap) > 0 {
		d.down(last)
	}
	return top.slot, 0
}

func (d *deadlines) up(i int, e due) {
	for i > 0 {
		p := (i - 1) / 2
		if d.heap[p].at <= e.at {
			break
		}
		d.place(i, d.heap[p])
		i = p
	}
	d.place(i, e)
}

func (d *deadlines) down(e due) {
	i := 0
	for {
		c := 2*i + 1
		if c >= len(d.heap) {
			break
		}
		if c+1 < len(d.heap) && d.heap[c+1].at < d.heap[c].at {
			c++
		}
		if d.heap[c].at >= e.at {
			break
		}
		d.place(i, d.heap[c])
		i = c
	}
	d.place(i, e)
}

func (d *deadlines) place(i int, e due) {
	d.heap[i] = e
	d.pos[e.slot] = int32(i)
}

// armLocked makes sure that s is looked at when it is due. Caller holds s.mu.
func (e *Engine) armLocked(s *slot) {
	at := s.due()
	if at == 0 || s.armed != 0 && s.armed <= at {
		return
	}
	s.armed = at
	e.queue.set(s.index, at)
}

// beatEvery is how often Run looks at the deadlines at least while there are some, and restEvery while there are none: a question that
// was read and never came here is known to nobody, and who watches from outside must see that somebody is there.
const (
	beatEvery = 20 * time.Millisecond
	restEvery = 500 * time.Millisecond
)

// Run ends budgets and probations until ctx is done; then it answers everything in flight "allow, shutdown", and so does
// Ask from there on.
func (e *Engine) Run(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.tellChanges(ctx)
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		next, asking := e.expireAll()
		e.cfg.Beats.Add(1)
		wait := restEvery
		if asking {
			wait = beatEvery
		}
		if now := e.cfg.Now(); next > now {
			wait = min(wait, time.Duration(next-now))
		} else if next != 0 {
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-e.queue.wake:
		}
	}
	e.closed.Store(true)
	used := e.table.slots
	for i := range used {
		e.abandon(&used[i])
	}
	<-done
	return nil
}

// expireAll handles all that is due and returns when to come back, 0 for never, and whether budgets are among what is to
// come.
func (e *Engine) expireAll() (next uint64, asking bool) {
	for {
		now := e.cfg.Now()
		var i int32
		i, next = e.queue.pop(now)
		if i == noSlot {
			asking = next != 0
			review := e.endProbations(now)
			if review != 0 && (next == 0 || review < next) {
				next = review
			}
			return next, asking
		}
		e.expire(&e.table.slots[i], now)
	}
}

// expire ends the budgets of s that are over, and comes back for the rest.
func (e *Engine) expire(s *slot, now uint64) {
	s.mu.Lock()
	s.armed = 0
	if at := s.due(); at == 0 || at > now {
		e.armLocked(s)
		s.mu.Unlock()
		return
	}
	if s.state == slotWaiting {
		s.mu.Unlock()
		e.endWait(s, now)
		return
	}
	b := &s.ballot
	over := b.pending
	if now < s.until {
		over &^= s.extended
	}
	over = b.silence(over, &b.missed)
	standing := over & e.judgedLocked(s)
	if !e.hadTimeLocked(s) {
		standing = 0
	}
	e.armLocked(s)
	e.decideLocked(s, now)
	e.stats.silent(over, func(p *productCounters) { p.missed.Add(1) })
	e.missedBy(standing, now)
}

// endWait asks a waiting question on its own, unless the one it waits for was given more time.
func (e *Engine) endWait(s *slot, now uint64) {
	t := e.table
	t.mu.Lock()
	if s.waitsOn == noSlot {
		t.mu.Unlock()
		return
	}
	lead := &t.slots[s.waitsOn]
	lead.mu.Lock()
	until, extended := lead.until, lead.extended&lead.ballot.live != 0
	lead.mu.Unlock()
	if extended && until > now {
		s.mu.Lock()
		s.budget = until
		e.armLocked(s)
		s.mu.Unlock()
		t.mu.Unlock()
		return
	}
	t.stopWaiting(s)
	t.mu.Unlock()
	e.askWaiter(s, now, extended)
}

// cutLingering frees a slot whose question is decided and that only waits for shadow answers, so that a slow shadow never
// costs a live product a question. It looks at a bounded number of slots.
func (e *Engine) cutLingering() {
	const probes = 64
	t := e.table
	for range probes {
		t.mu.Lock()
		t.hand = (t.hand + 1) % len(t.slots)
		s := &t.slots[t.hand]
		t.mu.Unlock()
		s.mu.Lock()
		if s.state != slotAsked || !s.ballot.decided || s.busy != 0 || s.ending {
			s.mu.Unlock()
			continue
		}
		cut := s.ballot.silence(s.ballot.pending, &s.ballot.unneeded)
		ending := s.mayEnd()
		s.mu.Unlock()
		e.stats.silent(cut, func(p *productCounters) { p.unneeded.Add(1) })
		if ending {
			e.stats.cut.Add(1)
			e.finish(s)
			return
		}
	}
}

// lateShutdown abandons a slot that was taken while Run ended.
func (e *Engine) lateShutdown(s *slot) {
	if e.closed.Load() {
		e.abandon(s)
	}
}
