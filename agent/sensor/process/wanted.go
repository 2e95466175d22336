package process

import (
	"errors"
	"fmt"

	"bailey/agent/health"
)

// request is a call of SetWanted that waits for the goroutine that empties the ring.
type request struct {
	wanted bool
	done   chan struct{}
}

// SetWanted says whether anybody wants process events or needs the tree. While nobody does, the kernel's part keeps the
// cells and sends nothing, and Lookup knows nobody. When somebody does again, SetWanted returns once the tree is right and
// the never-ask marks are set: from then on every event is emitted, and nothing is emitted of what happened before.
//
// Where pinned programs sent records while nobody read (Restored), its first call decides about those: they are emitted,
// and then the programs go on or rest.
//
// It may wait for the sensor's thread, so it must not be called from Emit or NeverAsk. Before Run and after its end it
// emits itself what an earlier time left in the ring; while another sensor reads the pinned ring, SetWanted(true) waits for
// Run to read it. After Leave it does nothing.
func (s *Sensor) SetWanted(wanted bool) {
	s.switching.Lock()
	defer s.switching.Unlock()
	switch {
	case s.left.Load():
	case s.undecided():
		s.ask(wanted)
	case s.wanted.Load() == wanted:
	case !wanted:
		s.rest()
	default:
		s.ask(true)
	}
}

// undecided says whether there may be something to inherit.
func (s *Sensor) undecided() bool {
	s.gate.Lock()
	defer s.gate.Unlock()
	return s.pins != nil && (!s.stocked || s.inheriting)
}

// rest has the kernel send nothing.
func (s *Sensor) rest() {
	s.wanted.Store(false)
	if s.kernel != nil {
		s.kernel.vars.want(false)
		_ = s.kernel.ring.flush() // what was sent until now; it fails only when the sensor is being closed
	}
}

// ask has the goroutine that empties the ring settle what is wanted, or does so itself where there is none.
func (s *Sensor) ask(wanted bool) {
	s.gate.Lock()
	if !s.reading && (s.pins == nil || s.pins.reads()) {
		defer s.gate.Unlock()
		s.settle(wanted)
		return
	}
	if !s.reading && (!wanted || s.over) { // Run decides so
		s.declined = !wanted
		s.gate.Unlock()
		return
	}
	r := &request{wanted, make(chan struct{})}
	s.request = r
	s.gate.Unlock()
	_ = s.kernel.ring.flush() // wakes it
	<-r.done
}

// serve settles what somebody waits for, and reports whether anybody did. The calling goroutine goes on reading the ring,
// or does not.
func (s *Sensor) serve(reading bool) bool {
	s.gate.Lock()
	defer s.gate.Unlock()
	s.reading = reading
	if s.request == nil {
		return false
	}
	if !s.left.Load() {
		s.settle(s.request.wanted)
	}
	close(s.request.done)
	s.request = nil
	return true
}

// settle makes the sensor work or rest. The caller holds gate and may read the ring.
func (s *Sensor) settle(wanted bool) {
	if err := s.takeStock(); err != nil {
		s.unreadable(err)
	}
	switch {
	case s.inheriting:
		s.inherit(wanted)
	case wanted:
		s.activate()
	default:
		s.rest()
	}
}

// activate makes the tree right after a time in which nobody wanted it.
//
// What an earlier time left in the ring goes first: the end of those processes may have been sent to nobody, and they
// would stay in the tree for ever. Then the kernel sends again, and only then are the processes read; what happens
// meanwhile is in the ring and is applied on top. So there is no gap and no ghost.
func (s *Sensor) activate() {
	var err error
	if s.kernel == nil {
		err = s.poll(false)
	} else {
		err = s.drain()
		s.kernel.vars.want(true)
		err = errors.Join(err, s.rescan())
	}
	s.unreadable(err)
	s.mu.Lock()
	s.tree.closePIDs()
	s.mu.Unlock()
	s.wanted.Store(true)
}

// drain applies and emits what is in the ring now.
func (s *Sensor) drain() error { return s.drainTo(s.kernel, s.kernel.ring.end()) }

// drainTo applies and emits what is in a generation's ring before a position.
func (s *Sensor) drainTo(k *kernel, end uint64) error {
	if k.ledger.records != recordFormat && k != s.kernel { // of another version: New said how many they are
		k.ring.commit(end)
		return nil
	}
	var r record
	for {
		sample, behind, err := k.ring.first(end)
		if err != nil {
			return fmt.Errorf("empty the ring buffer: %w", err)
		}
		if sample == nil {
			return nil
		}
		s.deal(k, &r, sample, behind)
	}
}

// unreadable says that the tree is incomplete, if err is not nil, and has it read again soon.
func (s *Sensor) unreadable(err error) {
	if s.unread = err != nil; !s.unread {
		return
	}
	s.cfg.Health.Set(health.Entry{
		Component: Component, Status: health.Degraded,
		Summary: fmt.Sprintf("the processes that run already could not be read: %v", err),
		Remedy:  "none needed if it passes: they are read again every second; else see the agent's log",
	})
}
