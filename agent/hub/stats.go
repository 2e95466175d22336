package hub

import (
	"sync/atomic"

	"bailey/agent/event"
)

type clientCounters struct {
	events, dropped           atomic.Uint64
	questions, unsent         atomic.Uint64
	findings, findingsDropped atomic.Uint64
}

// ClientStats is the account of one attached product. Events = Sent + Queued + Dropped.
type ClientStats struct {
	Number          int
	Name, Release   string
	Shadow          bool
	EventKinds      event.KindSet // accepted subscription
	QuestionKinds   event.KindSet
	Events          uint64 // made for it, without what it received from an earlier agent
	Sent            uint64
	Queued          int
	QueuedBytes     int
	Dropped         uint64 // queue full, or lost with an earlier agent
	Unacked         int    // sent and not yet acknowledged
	Acked           uint64 // the last number it acknowledged
	Questions       uint64 // sent
	Unsent          uint64 // its socket was full, or it was gone
	Findings        uint64
	FindingsDropped uint64 // beyond its rate
	Faults          uint64 // breaches of the protocol
	Authority       string // live, shadow, degraded or braked
	Reason          string // for it; empty for none
	Since           uint64 // nanoseconds since boot
}

// Stats is the hub's account.
type Stats struct {
	Events  uint64 // published since the start
	Taps    int
	Clients []ClientStats
}

// Stats returns the account.
func (h *Hub) Stats() Stats {
	h.publish.Lock()
	s := Stats{Events: h.seq}
	h.publish.Unlock()
	b := h.book.Load()
	s.Taps = len(b.taps)
	for _, c := range b.clients {
		if c != nil {
			s.Clients = append(s.Clients, c.Stats())
		}
	}
	return s
}

// Stats returns the product's account.
func (c *Client) Stats() ClientStats {
	m, f := c.member.Load(), c.sub.Load()
	s := ClientStats{
		Number: c.number, Name: m.Name, Release: m.Release, Shadow: m.Shadow, EventKinds: f.events, QuestionKinds: f.questions,
		Questions: c.count.questions.Load(), Unsent: c.count.unsent.Load(), Findings: c.count.findings.Load(),
		FindingsDropped: c.count.findingsDropped.Load(), Faults: c.faulted.Load(),
	}
	s.Authority, s.Reason, s.Since = c.authority.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Events, s.Dropped, s.QueuedBytes = c.seq-c.inherited, c.count.dropped.Load(), c.queue.bytes
	s.Sent, s.Unacked, s.Acked = c.count.events.Load(), c.inflight.n, c.inflight.acked
	for i := range c.queue.n {
		if c.queue.peek(i).p != nil {
			s.Queued++
		}
	}
	return s
}
