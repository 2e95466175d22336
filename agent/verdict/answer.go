package verdict

import "bailey/agent/event"

// Answer records a product's word on question id. The error is the product's fault: it was not asked, or it answered
// already. A late answer is counted and no error.
func (e *Engine) Answer(product int, id uint64, deny, cacheFile bool) error {
	if product < 0 || product >= event.MaxProducts {
		return ErrNotAsked
	}
	s := e.table.at(id)
	if s == nil {
		return ErrNotAsked
	}
	p := event.ProductBit(product)
	s.mu.Lock()
	if s.id != id || s.state != slotAsked || s.ballot.pending&p == 0 {
		defer s.mu.Unlock()
		return e.lateLocked(s, id, product)
	}
	now := e.now(s)
	var said event.Denial
	if deny && s.ballot.live&p != 0 {
		said = e.admitLocked(s, product, now)
	}
	s.ballot.answer(p, deny, cacheFile)
	latency := now - s.sent
	s.latency[product] = latency
	live, overridden := s.ballot.live&p != 0, s.ballot.overridden&p != 0
	e.decideLocked(s, now)

	e.stats.products[product].answer(deny, overridden, latency)
	e.denied(product, said)
	if live {
		e.noteAsker(p, cacheFile)
		e.answeredBy(product)
	}
	return nil
}

// admitLocked describes a live product's deny that is about to be taken, and takes its weight from it if that is too much;
// the zero value where the product holds no right to deny that could be taken from it. Caller holds s.mu.
func (e *Engine) admitLocked(s *slot, product int, now uint64) event.Denial {
	p := event.ProductBit(product)
	d := event.Denial{
		Product: s.voters.Names[product], QuestionID: s.id, Asked: s.kind, Time: now, File: s.file, Process: s.process,
	}
	switch {
	case s.ballot.mayDeny&p != 0:
		d.Fate = event.DenyStood
		if !e.cfg.Admit(&d) {
			d.Fate = event.DenyBraked
			s.ballot.brake(p)
		}
	case s.ballot.braked&p != 0:
		d.Fate = event.DenyBraked
	case s.critical && s.voters.MayDeny&p != 0:
		d.Fate = event.DenyCritical
	default:
		return event.Denial{}
	}
	return d
}

// denied counts a deny by its fate and tells who watches denies. The kernel has its answer already.
func (e *Engine) denied(product int, d event.Denial) {
	switch d.Fate {
	case event.DenyBraked:
		e.stats.products[product].braked.Add(1)
	case event.DenyCritical:
		e.stats.products[product].critical.Add(1)
	case event.DenyStood:
	default:
		return
	}
	e.cfg.OnDeny(d)
}

// noteAsker remembers whether a product's answers depend on who asks.
func (e *Engine) noteAsker(p event.ProductSet, cacheFile bool) {
	depends := e.byAsker.Load()&uint64(p) != 0
	switch {
	case cacheFile && depends:
		e.byAsker.And(^uint64(p))
	case !cacheFile && !depends:
		e.byAsker.Or(uint64(p))
	}
}

// lateLocked judges an answer that nothing waits for. Caller holds the lock of the slot that id names.
func (e *Engine) lateLocked(s *slot, id uint64, product int) error {
	p := event.ProductBit(product)
	c := &e.stats.products[product]
	b := &s.ballot
	switch {
	case s.id == id && s.state == slotAsked:
		switch {
		case b.answered&p != 0 || b.late&p != 0:
			return ErrSecondAnswer
		case (b.missed|b.unneeded)&p == 0:
			return ErrNotAsked
		}
		if b.missed&p != 0 {
			c.late.Add(1)
		}
		b.late |= p
		return nil
	case id > s.id || e.Earlier(id):
		return ErrNotAsked
	}
	// The question is over and forgotten, but how many such answers the product still owes is known.
	if c.owedMissed.Add(-1) >= 0 {
		c.late.Add(1)
		return nil
	}
	c.owedMissed.Add(1)
	if c.owedUnneeded.Add(-1) >= 0 {
		return nil
	}
	c.owedUnneeded.Add(1)
	return ErrNotAsked
}

// Extend asks for more time for one question: until deadline, but not beyond the operator's cap. Files of the critical set
// get none, and shadow questions only while the table has room.
func (e *Engine) Extend(product int, id, deadline uint64) error {
	if product < 0 || product >= event.MaxProducts {
		return ErrNotAsked
	}
	s := e.table.at(id)
	if s == nil {
		return ErrNotAsked
	}
	p := event.ProductBit(product)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.id != id || s.state != slotAsked:
		if id > s.id || e.Earlier(id) {
			return ErrNotAsked
		}
		return nil
	case (s.ballot.live|s.ballot.shadow)&p == 0:
		return ErrNotAsked
	case s.ballot.pending&p == 0:
		return nil
	}
	deadline = min(deadline, s.read+uint64(e.cfg.ExtendCap))
	roomy := s.ballot.live&p != 0 || e.InFlight() < len(e.table.slots)/4
	if s.critical || !roomy || deadline <= s.budget {
		e.stats.products[product].extendRefused.Add(1)
		return nil
	}
	e.stats.products[product].extended.Add(1)
	s.extended |= p
	s.until = max(s.until, deadline)
	return nil
}

// InFlight returns how many questions hold a slot, those waiting for shadow answers alone included.
func (e *Engine) InFlight() int { return int(e.table.inUse.Load()) }

// Gone says that a product will answer nothing more: its on_miss counts for all that it was asked.
func (e *Engine) Gone(product int) {
	if product < 0 || product >= event.MaxProducts {
		return
	}
	p := event.ProductBit(product)
	used := e.table.used()
	for i := range used {
		s := &used[i]
		s.mu.Lock()
		if s.state != slotAsked || s.ballot.pending&p == 0 {
			s.mu.Unlock()
			continue
		}
		s.ballot.silence(p, &s.ballot.gone)
		e.decideLocked(s, e.cfg.Now())
		e.stats.products[product].gone.Add(1)
	}
	e.forgetStanding(product)
}

// Brake takes the right to deny from a product in all questions that are in flight; for later ones the electorate says so.
func (e *Engine) Brake(product int) {
	if product < 0 || product >= event.MaxProducts {
		return
	}
	p := event.ProductBit(product)
	used := e.table.used()
	for i := range used {
		s := &used[i]
		s.mu.Lock()
		if s.state != slotFree && !s.ballot.decided {
			s.ballot.brake(p)
		}
		s.mu.Unlock()
	}
}

// Joined says that a product got this number: its record starts clean. Its totals go on if it had the number before.
func (e *Engine) Joined(product int, name string) {
	if product < 0 || product >= event.MaxProducts {
		return
	}
	e.forgetStanding(product)
	e.byAsker.And(^uint64(event.ProductBit(product)))
	e.stats.join(product, name)
}

// Renamed says that a product goes on under another name: its totals go on, and its record starts clean. An empty name says that the number is nobody's.
func (e *Engine) Renamed(product int, name string) {
	if product < 0 || product >= event.MaxProducts {
		return
	}
	e.forgetStanding(product)
	e.stats.names.Lock()
	defer e.stats.names.Unlock()
	e.stats.names.of[product] = name
}
