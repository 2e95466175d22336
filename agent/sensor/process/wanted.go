package process

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf/ringbuf"

	"bailey/agent/health"
)

// SetWanted says whether anybody wants process events or needs the tree. While nobody does, the kernel's part keeps the
// cells and sends nothing, and Lookup knows nobody. When somebody does again, SetWanted returns once the tree is right and
// the never-ask marks are set: from then on every event is emitted, and nothing is emitted of what happened before.
//
// It may wait for the sensor's thread, so it must not be called from Emit or NeverAsk. Before Run and after its end it
// emits itself what an earlier time left in the ring.
func (s *Sensor) SetWanted(wanted bool) {
	s.switching.Lock()
	defer s.switching.Unlock()
	switch {
	case s.wanted.Load() == wanted:
	case !wanted:
		s.wanted.Store(false)
		if s.kernel != nil {
			if err := s.kernel.want(false); err != nil {
				s.cfg.Log.Error("process sensor cannot rest", "err", err)
			}
			_ = s.kernel.ring.Flush() // what was sent until now; it fails only when the sensor is being closed
		}
	default:
		s.awake()
	}
}

// awake has the goroutine that empties the ring activate the sensor, or does so itself where there is none.
func (s *Sensor) awake() {
	s.gate.Lock()
	if !s.reading {
		defer s.gate.Unlock()
		s.activate()
		return
	}
	done := make(chan struct{})
	s.request = done
	s.gate.Unlock()
	_ = s.kernel.ring.Flush() // wakes it
	<-done
}

// serve activates the sensor if somebody waits for that, and reports whether it did. The calling goroutine goes on reading
// the ring, or does not.
func (s *Sensor) serve(reading bool) bool {
	s.gate.Lock()
	defer s.gate.Unlock()
	s.reading = reading
	if s.request == nil {
		return false
	}
	s.activate()
	close(s.request)
	s.request = nil
	return true
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
		err = errors.Join(s.drain(), s.kernel.want(true), s.rescan())
	}
	s.unreadable(err)
	s.mu.Lock()
	s.tree.closePIDs()
	s.mu.Unlock()
	s.wanted.Store(true)
}

// drain applies and emits what is in the ring. The kernel must not be sending.
func (s *Sensor) drain() error {
	var raw ringbuf.Record
	var r record
	_ = s.kernel.ring.Flush() // so that reading ends where the ring does
	for {
		err := s.kernel.ring.ReadInto(&raw)
		switch {
		case err == nil:
			s.take(&r, raw.RawSample)
		case errors.Is(err, ringbuf.ErrFlushed):
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("empty the ring buffer: %w", err)
		}
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
