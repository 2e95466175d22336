package verdict

import (
	"sync"
	"sync/atomic"
	"time"

	"bailey/agent/event"
)

// slotState says what a slot is used for.
type slotState uint8

const (
	slotFree    slotState = iota
	slotWaiting           // its question waits for an equal one in flight
	slotAsked             // products are being asked, or their last answers awaited after the verdict
)

const noSlot = int32(-1)

// slot is one question in flight. Slots live in a fixed table and are recycled, so that asking allocates nothing.
type slot struct {
	index int32

	// Guarded by the table's lock, which is taken before mu when both are needed.
	hash     uint64 // of the file; the bucket while linked
	linked   bool   // in its bucket: asked and not yet decided
	leads    bool   // equal questions may wait for it
	next     int32  // in the bucket or the free list
	waiters  int32  // first of the questions that wait for this one
	waitNext int32  // next in the leader's list
	waitsOn  int32  // the leader, noSlot when it was decided or given up

	mu       sync.Mutex
	state    slotState
	id       uint64 // the question's; also of the last one while free
	q        *event.Question
	voters   *event.Voters
	ballot   ballot
	decision event.Decision
	answered uint64 // when the verdict was given
	busy     int32  // parties inside that will look again at finished: the sender, the one that decides
	ending   bool   // finish was entered

	kind      event.Kind
	key       key
	epoch     uint64 // the cache's epoch when it was asked
	stale     bool   // the file was written meanwhile: not cacheable
	whole     bool   // every live product of the kind was asked, whatever its scope: the kernel may be told
	critical  bool
	read      uint64        // when the kernel's event was read
	sent      uint64        // when products were asked, by the boot clock
	sentClock time.Duration // and by the engine's own
	budget    uint64        // when the budget ends
	enough    uint64        // how much of it a product must have had for a miss to count against it
	until     uint64        // when the extended budget of those in extended ends
	extended  event.ProductSet
	armed     uint64 // when the deadline queue looks at this slot, 0 for not

	process *event.Process
	file    event.File
	latency [event.MaxProducts]uint64
}

// now returns the time that it is by the boot clock if the machine was not suspended since s was asked: without the system
// call that reading the boot clock takes. Caller holds mu.
func (e *Engine) now(s *slot) uint64 { return s.sent + uint64(e.clock()-s.sentClock) }

// due returns when the slot must be looked at next, 0 for never. Caller holds mu.
func (s *slot) due() uint64 {
	switch {
	case s.state == slotWaiting:
		return s.budget
	case s.state == slotFree || s.ballot.pending == 0:
		return 0
	case s.ballot.pending&^s.extended != 0:
		return s.budget
	}
	return s.until
}

// table hands out slots and knows which file each undecided question is about.
type table struct {
	mu      sync.Mutex
	free    int32
	buckets []int32
	slots   []slot
	high    int    // slots from here on were never used
	shift   uint   // bits of an id that name the slot
	first   uint64 // ids below it are not of this engine
	hand    int
	inUse   *atomic.Int64
}

func newTable(size int, generation uint64, inUse *atomic.Int64) *table {
	t := &table{slots: make([]slot, size), free: noSlot, inUse: inUse}
	for 1<<t.shift < size {
		t.shift++
	}
	base := generation << t.shift
	t.first = base + 1<<t.shift
	t.buckets = make([]int32, 2<<t.shift)
	for i := range t.buckets {
		t.buckets[i] = noSlot
	}
	for i := size - 1; i >= 0; i-- {
		s := &t.slots[i]
		s.index, s.id = int32(i), base+uint64(i)
		s.waiters, s.waitNext, s.waitsOn = noSlot, noSlot, noSlot
		s.next, t.free = t.free, int32(i)
	}
	return t
}

// at returns the slot that id names, nil when no slot has such a number.
func (t *table) at(id uint64) *slot {
	i := id & (1<<t.shift - 1)
	if i >= uint64(len(t.slots)) {
		return nil
	}
	return &t.slots[i]
}

// pop takes a free slot, the one used last: the table's memory in use stays small. Caller holds mu.
func (t *table) pop() *slot {
	if t.free == noSlot {
		return nil
	}
	s := &t.slots[t.free]
	t.free, s.next = s.next, noSlot
	t.inUse.Add(1)
	t.high = max(t.high, int(s.index)+1)
	return s
}

// used returns the slots that have ever been used.
func (t *table) used() []slot {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.slots[:t.high]
}

// push gives a slot back.
func (t *table) push(s *slot) {
	t.mu.Lock()
	s.next, t.free = t.free, s.index
	t.inUse.Add(-1)
	t.mu.Unlock()
}

// link files s under its file. Caller holds mu.
func (t *table) link(s *slot, hash uint64) {
	s.hash = hash
	b := hash & uint64(len(t.buckets)-1)
	s.next, t.buckets[b] = t.buckets[b], s.index
	s.linked = true
}

// unlink takes s out of its bucket and returns the questions that wait for it. Caller holds mu.
func (t *table) unlink(s *slot) (waiters int32) {
	if s.linked {
		p := &t.buckets[s.hash&uint64(len(t.buckets)-1)]
		for *p != s.index {
			p = &t.slots[*p].next
		}
		*p, s.next = s.next, noSlot
	}
	s.linked, s.leads = false, false
	waiters, s.waiters = s.waiters, noSlot
	for w := waiters; w != noSlot; w = t.slots[w].waitNext {
		t.slots[w].waitsOn = noSlot
	}
	return waiters
}

// leader returns the question in flight that an equal one may wait for. Caller holds mu.
func (t *table) leader(k key, hash, epoch uint64, live event.ProductSet) *slot {
	for i := t.buckets[hash&uint64(len(t.buckets)-1)]; i != noSlot; i = t.slots[i].next {
		s := &t.slots[i]
		if !s.leads || s.hash != hash {
			continue
		}
		s.mu.Lock()
		equal := s.key == k && s.epoch == epoch && s.ballot.live == live && !s.stale
		s.mu.Unlock()
		if equal {
			return s
		}
	}
	return nil
}

// wait makes w wait for leader. Caller holds mu.
func (t *table) wait(w, leader *slot) {
	w.waitsOn = leader.index
	w.waitNext, leader.waiters = leader.waiters, w.index
}

// stopWaiting takes w out of its leader's list and reports whether it was still there. Caller holds mu.
func (t *table) stopWaiting(w *slot) bool {
	if w.waitsOn == noSlot {
		return false
	}
	p := &t.slots[w.waitsOn].waiters
	for *p != w.index {
		p = &t.slots[*p].waitNext
	}
	*p, w.waitNext, w.waitsOn = w.waitNext, noSlot, noSlot
	return true
}
