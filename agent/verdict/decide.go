package verdict

import "bailey/agent/event"

// decideLocked gives the kernel its verdict if the vote is decided, and ends the slot if nothing more is awaited. The
// caller holds s.mu and no longer does after the call.
func (e *Engine) decideLocked(s *slot, now uint64) {
	d, withdrawn, ok := s.ballot.decide()
	if !ok {
		ending := s.mayEnd()
		s.mu.Unlock()
		if ending {
			e.finish(s)
		}
		return
	}
	fileOnly := s.ballot.fileOnly(d) && s.key.valid() && !s.stale
	d.CacheFile = d.Allow && fileOnly && s.whole
	e.concludeLocked(s, d, fileOnly, withdrawn, now)
}

// concludeLocked hands d to the kernel first and then does all that can come later: cache, withdrawals, questions that
// wait. fileOnly tells that the verdict may be kept and shared. The caller holds s.mu and loses it.
func (e *Engine) concludeLocked(s *slot, d event.Decision, fileOnly bool, withdrawn event.ProductSet, now uint64) {
	q, v, id, epoch := s.q, s.voters, s.id, s.epoch
	entry := entry{key: s.key, epoch: epoch, by: s.ballot.live, allow: d.Allow, whole: s.whole}
	if !d.Allow {
		entry.by = s.ballot.denied & s.ballot.mayDeny
	}
	s.q, s.decision, s.answered = nil, d, now
	s.busy++
	s.mu.Unlock()

	e.giveMarked(q, d, epoch)
	q.Release()
	if fileOnly {
		e.cache.put(entry, e.epoch.Load())
		e.dropIfStale(s, entry.key)
	}
	if withdrawn != 0 {
		e.stats.silent(withdrawn, func(p *productCounters) { p.unneeded.Add(1) })
		e.cfg.Electorate.Withdraw(v, id, withdrawn)
	}
	e.table.mu.Lock()
	waiters := e.table.unlink(s)
	e.table.mu.Unlock()
	e.serve(waiters, d, entry.by, fileOnly, now)
	e.leave(s)
}

// dropIfStale takes a verdict out of the cache again if the file was written while it was being put there.
func (e *Engine) dropIfStale(s *slot, k key) {
	s.mu.Lock()
	stale := s.stale
	s.mu.Unlock()
	if stale {
		e.cache.forget(k.dev, k.ino)
	}
}

// serve answers the questions that waited for a decided one, or asks each on its own.
func (e *Engine) serve(w int32, d event.Decision, by event.ProductSet, shared bool, now uint64) {
	for w != noSlot {
		s := &e.table.slots[w]
		w, s.waitNext = s.waitNext, noSlot
		if !shared {
			e.askWaiter(s, now, false)
			continue
		}
		s.mu.Lock()
		q := s.q
		e.vacateLocked(s)
		given := event.Decision{Allow: d.Allow, Reason: event.ByShare}
		e.give(q, given)
		if !d.Allow {
			e.stats.repeat(q.Kind, by)
			e.recordBare(q, given, now)
		}
		q.Release()
	}
}

// askWaiter asks a question on its own that waited for an equal one in vain. Its time is what is left of its own, or a new
// budget if the one it waited for was extended. The caller owns s: it is in nobody's list.
func (e *Engine) askWaiter(s *slot, now uint64, renew bool) {
	e.table.mu.Lock()
	s.mu.Lock()
	q := s.q
	s.state = slotAsked
	e.setBudget(s, now)
	if renew {
		s.budget = min(now+budgetOf(e.deadline[s.kind]), s.read+uint64(e.cfg.ExtendCap))
	}
	e.table.link(s, e.cache.hash(s.file.Dev, s.file.Ino))
	o := e.orderLocked(s)
	s.mu.Unlock()
	e.table.mu.Unlock()
	e.stats.sharedInVain.Add(1)
	e.send(s, q, o, now)
}

// leave ends one party's business with s.
func (e *Engine) leave(s *slot) {
	s.mu.Lock()
	s.busy--
	ending := s.mayEnd()
	s.mu.Unlock()
	if ending {
		e.finish(s)
	}
}

// mayEnd reports, to one caller only, that the slot's work is done. Caller holds mu.
func (s *slot) mayEnd() bool {
	if s.state != slotAsked || s.ending || s.busy != 0 || !s.ballot.finished() {
		return false
	}
	s.ending = true
	return true
}

// finish records the question's outcome and frees the slot.
func (e *Engine) finish(s *slot) {
	s.mu.Lock()
	wanted, notable := e.cfg.Wanted(), e.notable(s.decision) || s.ballot.overridden != 0 && e.cfg.Notable != nil
	if wanted || notable {
		ev := e.outcomeLocked(s)
		s.mu.Unlock()
		e.tellOutcome(ev, wanted, notable)
		s.mu.Lock()
	}
	e.stats.owed(s.ballot.missed&^s.ballot.late, s.ballot.unneeded&^s.ballot.late)
	e.vacateLocked(s)
}

// vacateLocked frees s, whose question is over or moved elsewhere. The caller holds s.mu and loses it.
func (e *Engine) vacateLocked(s *slot) {
	s.state = slotFree
	s.q, s.voters, s.process, s.file = nil, nil, nil, event.File{}
	s.ballot = ballot{}
	s.mu.Unlock()
	e.table.push(s)
}

// give counts d and hands it to the kernel.
func (e *Engine) give(q *event.Question, d event.Decision) {
	e.stats.decided(d)
	if !q.Answer(d) {
		e.stats.foreign.Add(1)
	}
}

// giveMarked is give for a decision that may make the sensor set an ignore mark: not if there was an invalidation since
// the question was asked, and no invalidation flushes marks while this one may be setting its own.
func (e *Engine) giveMarked(q *event.Question, d event.Decision, epoch uint64) {
	if !d.CacheFile {
		e.give(q, d)
		return
	}
	gate := &e.marking[epoch&1]
	gate.Add(1)
	if e.epoch.Load() != epoch {
		d.CacheFile = false
	}
	e.give(q, d)
	gate.Add(-1)
}
