package verdict

import "bailey/agent/event"

// abandon answers whatever is in s "allow, shutdown" and stops to wait for anything.
func (e *Engine) abandon(s *slot) {
	d := event.Decision{Allow: true, Reason: event.ByShutdown}
	e.table.mu.Lock()
	waited := e.table.stopWaiting(s)
	e.table.mu.Unlock()
	s.mu.Lock()
	if waited {
		q := s.q
		e.vacateLocked(s)
		e.give(q, d)
		q.Release()
		return
	}
	if s.state != slotAsked {
		s.mu.Unlock()
		return
	}
	cut := s.ballot.silence(s.ballot.pending, &s.ballot.unneeded)
	e.stats.silent(cut, func(p *productCounters) { p.unneeded.Add(1) })
	if !s.ballot.decided {
		s.ballot.decided = true
		e.concludeLocked(s, d, false, 0, e.cfg.Now())
		return
	}
	ending := s.mayEnd()
	s.mu.Unlock()
	if ending {
		e.finish(s)
	}
}
