package recorder

import (
	"time"

	"bailey/agent/event"
)

// Query says which records are wanted. The zero value is all of them.
type Query struct {
	Since, Until time.Time     // by the clock on the wall; zero: from the first, to the last
	Kinds        event.KindSet // of events; zero: all
	// Process is whose events are wanted: what it did, its fork, the verdicts on it and findings about it. PID 0 is
	// everybody's; Start 0 is every process that had this pid.
	Process event.ProcessKey
	// Tree adds the descendants of Process, whenever they were forked.
	Tree bool
}

// filter applies a Query to records in their order.
type filter struct {
	Query
	family map[kin]bool // with Tree: Process and its descendants so far
}

// kin is a process of one boot.
type kin struct {
	boot string
	key  event.ProcessKey
}

// forTree are the kinds that say who descends from whom.
var forTree = event.KindsOf(event.Exec, event.Fork, event.Exit)

func newFilter(q Query) *filter { return &filter{Query: q, family: map[kin]bool{}} }

// skips reports whether nothing in a block of this boot, whose clock began at zero, is of interest.
func (f *filter) skips(h *blockHeader, zero int64) bool {
	kinds := f.Kinds
	if f.Tree {
		kinds |= forTree
	}
	if f.Kinds != 0 && h.kinds&(kinds|event.KindsOf(0)) == 0 {
		return true
	}
	if !f.Until.IsZero() && wallTime(zero, h.first).After(f.Until) {
		return true
	}
	return !f.Tree && !f.Since.IsZero() && wallTime(zero, h.last).Before(f.Since)
}

// wallTime is what the clock on the wall shows at a time since boot.
func wallTime(zero int64, at uint64) time.Time { return time.Unix(0, zero+int64(at)) }

// wants reports whether r is of interest. Called for every record of the blocks that are not skipped, in order.
func (f *filter) wants(r *Record) bool {
	concerns := r.Type != Event || f.concerns(r)
	switch {
	case !f.Since.IsZero() && r.Wall.Before(f.Since), !f.Until.IsZero() && r.Wall.After(f.Until):
		return false
	case r.Type == Loss:
		return true // what is missing may have been of interest
	case r.Type != Event:
		return f.Kinds == 0 && f.Process.PID == 0
	}
	return concerns && (f.Kinds == 0 || f.Kinds.Has(r.Event.Kind))
}

// concerns reports whether an event is about the process, or the family, asked for.
func (f *filter) concerns(r *Record) bool {
	if f.Process.PID == 0 {
		return true
	}
	e := r.Event
	found := false
	if p := e.Process; p != nil {
		if f.Tree && !f.is(r.Boot, p.Key) && f.is(r.Boot, p.Parent) {
			f.family[kin{r.Boot, p.Key}] = true
		}
		found = f.is(r.Boot, p.Key)
	}
	if e.Fork != nil && e.Fork.Child != nil {
		child := e.Fork.Child.Key
		if f.Tree && found {
			f.family[kin{r.Boot, child}] = true
		}
		found = found || f.is(r.Boot, child)
	}
	if e.Finding != nil && e.Finding.Target != (event.ProcessKey{}) {
		found = found || f.is(r.Boot, e.Finding.Target)
	}
	return found
}

func (f *filter) is(boot string, key event.ProcessKey) bool {
	if key.PID == f.Process.PID && (f.Process.Start == 0 || key.Start == f.Process.Start) {
		return true
	}
	return f.family[kin{boot, key}]
}
