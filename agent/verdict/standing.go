package verdict

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"bailey/agent/event"
)

// When a live product is degraded.
const (
	missesInRow    = 3
	missesInWindow = 10 // of the last window questions that it was asked
	window         = 100

	// The same number of misses is too much among far more questions, if it comes within a minute: each is a program that
	// stood still. (A product that misses every thousandth never misses 10 of a hundred.)
	sparseOf  = 10_000
	sparseFor = time.Minute
)

// standing is a live product's record of misses. A degraded product is asked as a shadow until a whole probation passed
// without a miss; a product that was asked nothing in that time returns as well, because nothing speaks against it.
type standing struct {
	blemished atomic.Bool // has misses in its window or is degraded; read without the lock on the good path

	mu       sync.Mutex
	missed   [window]bool
	pos      int
	misses   int
	inRow    int
	degraded bool
	until    uint64 // end of the probation

	recent [missesInWindow - 1]miss // the misses before the newest
	next   int                      // the oldest of them
}

// miss is when a product missed a question, and how many it had been asked by then.
type miss struct{ at, asked uint64 }

func (s *standing) record(missed bool) {
	if s.missed[s.pos] {
		s.misses--
	}
	s.missed[s.pos] = missed
	s.pos = (s.pos + 1) % window
	s.inRow++
	if missed {
		s.misses++
		return
	}
	s.inRow = 0
}

// sparse notes a miss and returns among how many questions and in what time there were missesInWindow of them, if both are
// too little.
func (s *standing) sparse(now, asked uint64) (of uint64, within time.Duration, tooMany bool) {
	first := s.recent[s.next]
	s.recent[s.next] = miss{now, asked}
	s.next = (s.next + 1) % len(s.recent)
	of, within = asked-first.asked+1, time.Duration(now-first.at)
	return of, within, first.at != 0 && of <= sparseOf && within <= sparseFor
}

func (s *standing) clear() {
	s.missed, s.pos, s.misses, s.inRow, s.degraded, s.until = [window]bool{}, 0, 0, 0, false, 0
	s.recent, s.next = [missesInWindow - 1]miss{}, 0
	s.blemished.Store(false)
}

// judgedLocked returns the products whose silence on this question counts against them: those that it waited for, and
// degraded ones. Caller holds s.mu.
func (e *Engine) judgedLocked(s *slot) event.ProductSet {
	return s.ballot.live | s.voters.Live&e.degradedSet()
}

// hadTimeLocked reports whether products really had at least half of a budget: a question that was late when it was asked
// says nothing about them. Caller holds s.mu.
func (e *Engine) hadTimeLocked(s *slot) bool { return uint64(e.clock()-s.sentClock) >= s.enough }

// answeredBy notes that a product answered in time.
func (e *Engine) answeredBy(product int) {
	s := &e.standing[product]
	if !s.blemished.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.degraded {
		return
	}
	s.record(false)
	if s.misses == 0 {
		s.blemished.Store(false)
	}
}

// missedBy notes that products let their budget pass, or had a full socket.
func (e *Engine) missedBy(ps event.ProductSet, now uint64) {
	for ; ps != 0; ps &= ps - 1 {
		e.missedOnce(ps.First(), now)
	}
}

func (e *Engine) missedOnce(product int, now uint64) {
	s := &e.standing[product]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blemished.Store(true)
	if s.degraded {
		s.until = now + uint64(e.cfg.Probation)
		return
	}
	s.record(true)
	of, within, sparse := s.sparse(now, e.stats.products[product].live.Load())
	reason := ""
	switch {
	case s.inRow >= missesInRow:
		reason = fmt.Sprintf("missed %d questions in a row", s.inRow)
	case s.misses >= missesInWindow:
		reason = fmt.Sprintf("missed %d of the last %d questions", s.misses, window)
	case sparse:
		reason = fmt.Sprintf("missed %d of the last %d questions, within %v", missesInWindow, of, within.Round(time.Second))
	default:
		return
	}
	s.degraded, s.until = true, now+uint64(e.cfg.Probation)
	e.degraded.Or(uint64(event.ProductBit(product)))
	e.stats.products[product].degradations.Add(1)
	e.announce(change{product: product, degraded: true, reason: reason})
	e.queue.kick()
}

// endProbations lets products return whose probation is over, and returns when the next one ends, 0 for none.
func (e *Engine) endProbations(now uint64) (next uint64) {
	for ps := e.degradedSet(); ps != 0; ps &= ps - 1 {
		i := ps.First()
		s := &e.standing[i]
		s.mu.Lock()
		switch {
		case !s.degraded:
		case s.until <= now:
			s.clear()
			e.degraded.And(^uint64(event.ProductBit(i)))
			e.announce(change{product: i, reason: fmt.Sprintf("no miss in %v", e.cfg.Probation)})
		case next == 0 || s.until < next:
			next = s.until
		}
		s.mu.Unlock()
	}
	return next
}

// forgetStanding gives a number's next product a clean record.
func (e *Engine) forgetStanding(product int) {
	s := &e.standing[product]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	e.degraded.And(^uint64(event.ProductBit(product)))
}

// Degraded reports whether a product is degraded now.
func (e *Engine) Degraded(product int) bool { return e.degradedSet().Has(product) }

func (e *Engine) announce(c change) {
	e.changes.mu.Lock()
	e.changes.list = append(e.changes.list, c)
	e.changes.mu.Unlock()
	select {
	case e.changes.wake <- struct{}{}:
	default:
	}
}

// tellChanges passes transitions on, apart from the deadlines, which must not wait for whoever listens. A product that
// returns was not asked for a while, so nothing that was cached meanwhile may stand.
func (e *Engine) tellChanges(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.changes.wake:
		}
		e.changes.mu.Lock()
		list := e.changes.list
		e.changes.list = nil
		e.changes.mu.Unlock()
		for _, c := range list {
			if !c.degraded {
				// A failure is in the health registry, and the next invalidation flushes again.
				_ = e.Invalidate("product_returned")
			}
			e.cfg.OnAuthority(c.product, c.degraded, c.reason)
		}
	}
}
