package journal

import (
	"cmp"
	"maps"
	"slices"
	"sync"
)

// Causes of a loss.
const (
	causeQueue = "queue" // the journal's queue was full
	causeFlood = "flood" // a kind exceeded its part of the journal: summed up instead
	causeDisk  = "disk"  // the disk took nothing for too long
)

// lossKey is what losses are counted by. Product is empty where it does not matter.
type lossKey struct {
	Kind    Kind   `json:"kind"`
	Cause   string `json:"cause"`
	Product string `json:"product,omitempty"`
}

// lossCount is one count of a line of the kind lost.
type lossCount struct {
	lossKey
	Count uint64 `json:"count"`
}

// maxLossKeys bounds the distinct counts; products are bounded too, so that this is for what nobody thought of.
const maxLossKeys = 256

// losses counts what could not be written until it can be said. Safe for concurrent use.
type losses struct {
	mu     sync.Mutex
	counts map[lossKey]uint64
	since  uint64 // boot time of the first
	total  uint64 // ever, floods not included: those are summed up on purpose
	floods uint64
}

func (l *losses) add(k lossKey, n, now uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts == nil {
		l.counts, l.since = map[lossKey]uint64{}, now
	}
	if _, known := l.counts[k]; !known && len(l.counts) >= maxLossKeys {
		k.Product = ""
	}
	l.counts[k] += n
	if k.Cause == causeFlood {
		l.floods += n
		return
	}
	l.total += n
}

// lostFields are those of a line of the kind lost.
type lostFields struct {
	Since  uint64      `json:"since"` // boot time of the first one
	Counts []lossCount `json:"counts"`
}

// take returns what was counted and forgets it; nil if nothing was.
func (l *losses) take() *lostFields {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.counts) == 0 {
		return nil
	}
	f := &lostFields{Since: l.since}
	for _, k := range slices.SortedFunc(maps.Keys(l.counts), func(a, b lossKey) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Cause, b.Cause), cmp.Compare(a.Product, b.Product))
	}) {
		f.Counts = append(f.Counts, lossCount{k, l.counts[k]})
	}
	l.counts = nil
	return f
}

// putBack undoes take for what could not be written after all.
func (l *losses) putBack(f *lostFields) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts == nil {
		l.counts = map[lossKey]uint64{}
	}
	l.since = f.Since
	for _, c := range f.Counts {
		l.counts[c.lossKey] += c.Count
	}
}

// some reports whether there is something to say, and whether it is more than floods.
func (l *losses) some() (any, real bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.counts {
		any = true
		real = real || k.Cause != causeFlood
	}
	return any, real
}

func (l *losses) totals() (lost, floods uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total, l.floods
}
