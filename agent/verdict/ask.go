package verdict

import (
	"time"

	"bailey/agent/event"
)

// Ask takes q over and sees to it that it is answered exactly once. It never blocks, opens no file and logs nothing, and
// in steady state allocates nothing: the thread that reads the kernel's questions calls it.
func (e *Engine) Ask(q *event.Question) {
	e.stats.questions.Add(1)
	if q.Time == 0 {
		q.Time = e.cfg.Now()
	}
	now := q.Time
	switch {
	case e.closed.Load():
		e.give(q, event.Decision{Allow: true, Reason: event.ByShutdown})
		q.Release()
		return
	case q.NeverAsk:
		d := event.Decision{Allow: true, Reason: event.ByNeverAsk}
		e.give(q, d)
		v, within := e.cfg.Electorate.Voters(q)
		e.tell(q, v, within, d, now)
		return
	}
	v, within := e.cfg.Electorate.Voters(q)
	if v == nil {
		e.give(q, event.Decision{Allow: true, Reason: event.ByNobody})
		q.Release()
		return
	}
	epoch := e.epoch.Load()
	b := newBallot(v, within, e.degradedSet())
	if b.live == 0 {
		d := event.Decision{Allow: true, Reason: event.ByNobody}
		if v.Live&within != 0 {
			d.Reason = event.ByDefault // all are degraded
		}
		e.give(q, d)
		e.tell(q, v, within, d, now)
		return
	}
	var k key
	if !e.cfg.NoCache && !q.Unwatched {
		k = keyOf(q, time.Now().UnixNano())
	}
	if k.valid() && e.fromCache(q, k, epoch, &b, now) {
		return
	}
	critical := e.cfg.Critical(&q.File)
	if critical {
		b.restrictCritical(v)
	}
	s, o := e.claim(q, v, &b, k, epoch, critical, now)
	switch {
	case s == nil:
		e.overload(q, &b, now)
	case o.to == 0: // it waits for an equal question
		e.lateShutdown(s)
	default:
		e.send(s, q, o, now)
	}
}

func (e *Engine) degradedSet() event.ProductSet { return event.ProductSet(e.degraded.Load()) }

// fromCache answers q from the cache if it can.
func (e *Engine) fromCache(q *event.Question, k key, epoch uint64, b *ballot, now uint64) bool {
	found, ok := e.cache.get(k, epoch, b.live, b.mayDeny)
	if !ok {
		return false
	}
	d := event.Decision{Allow: found.allow, Reason: event.ByCache, CacheFile: found.allow && found.whole}
	e.giveMarked(q, d, epoch)
	if !found.allow {
		e.stats.repeat(q.Kind, found.by&b.mayDeny)
		e.recordBare(q, d, now)
	}
	q.Release()
	return true
}

// overload answers q when the table is full: every product missed, so each on_miss counts.
func (e *Engine) overload(q *event.Question, b *ballot, now uint64) {
	d := event.Decision{Allow: b.missDenies == 0, Reason: event.ByOverload}
	e.give(q, d)
	if !d.Allow {
		e.recordBare(q, d, now)
	}
	q.Release()
}

// claim takes a slot for q, which then either waits for an equal question (the order is empty) or must be sent. nil when
// there is no slot.
func (e *Engine) claim(q *event.Question, v *event.Voters, b *ballot, k key, epoch uint64, critical bool, now uint64) (s *slot, o order) {
	t := e.table
	hash := e.cache.hash(q.File.Dev, q.File.Ino)
	t.mu.Lock()
	defer t.mu.Unlock()
	var lead *slot
	may := k.valid() && uint64(b.live)&e.byAsker.Load() == 0
	if may {
		lead = t.leader(k, hash, epoch, b.live)
	}
	// What is freed for this question another asker may take first: a few tries.
	for range 4 {
		if s = t.pop(); s != nil {
			break
		}
		lead = nil
		t.mu.Unlock()
		e.cutLingering()
		t.mu.Lock()
	}
	if s == nil {
		return nil, order{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.fill(s, q, v, b, k, epoch, critical, now)
	if lead != nil {
		s.state = slotWaiting
		s.budget = now + e.deadline[q.Kind]/4
		t.wait(s, lead)
		e.armLocked(s)
		return s, order{}
	}
	s.leads = may
	t.link(s, hash)
	return s, e.orderLocked(s)
}

// fill makes s the slot of q. Caller holds the slot's lock.
func (e *Engine) fill(s *slot, q *event.Question, v *event.Voters, b *ballot, k key, epoch uint64, critical bool, now uint64) {
	s.state = slotAsked
	s.id += 1 << e.table.shift
	q.ID = s.id
	s.q, s.voters, s.ballot, s.decision = q, v, *b, event.Decision{}
	s.busy, s.ending, s.answered = 0, false, 0
	s.kind, s.key, s.epoch, s.stale = q.Kind, k, epoch, false
	s.whole = v.Live&^e.degradedSet() == b.live
	s.critical, s.extended, s.until = critical, 0, 0
	s.read, s.process, s.file = q.Time, q.Process, q.File
	e.setBudget(s, now)
}

// setBudget starts the products' time for s. Caller holds the slot's lock.
func (e *Engine) setBudget(s *slot, now uint64) {
	deadline := e.deadline[s.kind]
	if s.critical && !s.ballot.decided {
		deadline = min(deadline, uint64(e.cfg.CriticalDeadline))
	}
	s.sent, s.sentClock = now, e.clock()
	s.budget = s.read + budgetOf(deadline)
	s.enough = budgetOf(deadline) / 2
}

// order is what is to be sent for one slot.
type order struct {
	voters     *event.Voters
	to, shadow event.ProductSet
	deadline   uint64
	critical   bool
}

// orderLocked opens the vote of s: from here on answers, deaths and deadlines count, and the question and the slot stay
// until send has been called. Caller holds s.mu since it filled the slot.
func (e *Engine) orderLocked(s *slot) order {
	s.busy++
	if s.q != nil {
		s.q.Hold() // one use is the slot's until the verdict, one is the sender's
	}
	e.armLocked(s)
	b := &s.ballot
	e.stats.asked(b.pending, b.shadow)
	return order{s.voters, b.pending, b.shadow, s.budget, s.critical}
}

// send asks the products of s, whose question q the caller holds once more than the slot does and gives up.
func (e *Engine) send(s *slot, q *event.Question, o order, now uint64) {
	full, gone := e.cfg.Electorate.Send(o.voters, q, o.to, o.shadow, o.deadline, o.critical)
	q.Release()
	if full|gone != 0 {
		e.unheard(s, full, gone, now)
	}
	e.leave(s)
	e.lateShutdown(s)
}

// unheard records that a question did not reach some of its products.
func (e *Engine) unheard(s *slot, full, gone event.ProductSet, now uint64) {
	s.mu.Lock()
	full = s.ballot.silence(full, &s.ballot.unsent)
	gone = s.ballot.silence(gone, &s.ballot.gone)
	standing := full & e.judgedLocked(s)
	e.decideLocked(s, now)
	e.stats.silent(full, func(p *productCounters) { p.unsent.Add(1) })
	e.stats.silent(gone, func(p *productCounters) { p.gone.Add(1) })
	e.missedBy(standing, now)
}

// tell asks all products of an answered question as shadows, and gives q up.
func (e *Engine) tell(q *event.Question, v *event.Voters, within event.ProductSet, d event.Decision, now uint64) {
	if v == nil || (v.Live|v.Shadow)&within == 0 {
		q.Release()
		return
	}
	b := newBallot(v, within, 0)
	b.onlyShadow()
	t := e.table
	t.mu.Lock()
	s := t.pop()
	t.mu.Unlock()
	if s == nil {
		e.stats.untold.Add(1)
		q.Release()
		return
	}
	s.mu.Lock()
	e.fill(s, q, v, &b, key{}, 0, e.cfg.Critical(&q.File), now)
	s.q, s.decision, s.answered = nil, d, now
	o := e.orderLocked(s)
	s.mu.Unlock()
	e.send(s, q, o, now)
}
