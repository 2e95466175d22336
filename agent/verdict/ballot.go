package verdict

import "bailey/agent/event"

// ballot is the state of one question's vote: which products were asked and what has become of each. It is only sets, so
// that every step is a few bit operations. Not safe for concurrent use: the slot's lock guards it.
//
// A product that was asked is in exactly one of pending, answered, missed, unsent, gone and unneeded.
type ballot struct {
	live       event.ProductSet // their answers count and are waited for
	shadow     event.ProductSet // asked, recorded, never counted
	mayDeny    event.ProductSet // live products whose deny decides this very question
	missDenies event.ProductSet // live products whose silence denies it
	braked     event.ProductSet // live products that the brake keeps from denying

	pending    event.ProductSet
	answered   event.ProductSet
	denied     event.ProductSet // subset of answered
	cacheFile  event.ProductSet // subset of answered
	overridden event.ProductSet // subset of denied: live, but may not deny this
	missed     event.ProductSet
	unsent     event.ProductSet
	gone       event.ProductSet
	unneeded   event.ProductSet
	late       event.ProductSet // answered after their outcome was fixed

	decided bool
}

// newBallot opens the vote of the products in v that are within, with degraded ones moved to shadow.
func newBallot(v *event.Voters, within, degraded event.ProductSet) ballot {
	var b ballot
	b.live = v.Live & within &^ degraded
	b.shadow = (v.Live | v.Shadow) & within &^ b.live
	b.pending = b.live | b.shadow
	b.mayDeny = v.MayDeny & b.live
	b.missDenies = v.MissDenies & b.mayDeny
	b.braked = v.Braked & b.live
	return b
}

// restrictCritical takes the right to deny from all that do not hold it for the critical set.
func (b *ballot) restrictCritical(v *event.Voters) {
	b.mayDeny &= v.MayDenyCritical
	b.missDenies &= b.mayDeny
}

// brake takes the right to deny from p in a vote that was opened before p was braked.
func (b *ballot) brake(p event.ProductSet) {
	p &= b.mayDeny
	b.mayDeny &^= p
	b.missDenies &^= p
	b.braked |= p
}

// onlyShadow asks everyone without waiting for anyone: the kernel has its verdict already.
func (b *ballot) onlyShadow() {
	b.shadow |= b.live
	b.live, b.mayDeny, b.missDenies, b.braked = 0, 0, 0, 0
	b.decided = true
}

// answer records a pending product's word.
func (b *ballot) answer(p event.ProductSet, deny, cacheFile bool) {
	b.pending &^= p
	b.answered |= p
	if cacheFile {
		b.cacheFile |= p
	}
	if !deny {
		return
	}
	b.denied |= p
	if b.live&p != 0 && b.mayDeny&p == 0 {
		b.overridden |= p
	}
}

// silence moves those of ps that are pending to the given set, which is one of the ballot's own, and returns them.
func (b *ballot) silence(ps event.ProductSet, into *event.ProductSet) event.ProductSet {
	ps &= b.pending
	b.pending &^= ps
	*into |= ps
	return ps
}

// silent returns the live products whose on_miss counts.
func (b *ballot) silent() event.ProductSet { return (b.missed | b.unsent | b.gone) & b.live }

// decide reports, once, that the vote is decided, with the verdict and the products that are no longer needed.
func (b *ballot) decide() (d event.Decision, withdrawn event.ProductSet, ok bool) {
	if b.decided {
		return d, 0, false
	}
	deniers := b.denied & b.mayDeny
	switch {
	case deniers != 0:
		d = event.Decision{Reason: event.ByProducts}
	case b.silent()&b.missDenies != 0:
		d = event.Decision{Reason: event.ByDefault}
	case b.pending&b.live != 0:
		return d, 0, false
	case b.silent() != 0:
		d = event.Decision{Allow: true, Reason: event.ByDefault}
	default:
		d = event.Decision{Allow: true, Reason: event.ByProducts}
		d.CacheFile = b.live&^b.cacheFile == 0 && b.overridden == 0
	}
	b.decided = true
	withdrawn = b.silence(b.live, &b.unneeded)
	return d, withdrawn, true
}

// fileOnly reports whether the decided verdict depends on the file alone, so that equal questions may share it.
func (b *ballot) fileOnly(d event.Decision) bool {
	if d.Allow {
		return d.CacheFile
	}
	return b.denied&b.mayDeny&b.cacheFile != 0
}

// finished reports whether nothing more is awaited, shadow answers included.
func (b *ballot) finished() bool { return b.decided && b.pending == 0 }

// outcome says what became of product p.
func (b *ballot) outcome(p event.ProductSet) event.AnswerOutcome {
	switch {
	case b.overridden&p != 0:
		return event.Overridden
	case b.answered&p != 0:
		return event.Answered
	case b.missed&p != 0:
		return event.Missed
	case b.unsent&p != 0:
		return event.Unsent
	case b.gone&p != 0:
		return event.Gone
	}
	return event.Unneeded
}

// allowed says what counted for product p: its word, or its on_miss. An overridden deny counted as an allow.
func (b *ballot) allowed(p event.ProductSet) bool {
	if b.answered&p != 0 {
		return b.denied&p == 0 || b.overridden&p != 0
	}
	return b.missDenies&(b.missed|b.unsent|b.gone)&p == 0
}
