package hub

import (
	"fmt"
	"sync"
	"sync/atomic"

	"bailey/agent/event"
)

// Client is one attached product. The transport calls its methods with what the product says. Safe for concurrent use.
type Client struct {
	hub     *Hub
	number  int
	conn    Conn
	member  atomic.Pointer[Member]
	sub     atomic.Pointer[filter]
	closed  atomic.Bool
	wake    chan struct{}
	closing chan struct{}
	flushed chan struct{} // closed when the flusher has ended

	asking       sync.Mutex
	questionSeq  uint64
	questionLost lost
	news         *news          // an authority change that the product has not been told yet
	questions    *atomic.Uint64 // where questionSeq is kept for the next agent; nil: nowhere

	mu        sync.Mutex
	seq       uint64         // of the last event made for it
	events    *atomic.Uint64 // where seq is kept for the next agent; nil: nowhere
	inherited uint64         // of seq, what earlier agents made and the product has received
	queue     queue
	inflight  inflight

	authority authority

	heir    *Client // takes its place when it goes; guarded by the hub's order
	standby *Member // what it is again then; nil where it is nobody's heir

	tokens  tokens
	count   clientCounters
	faulted atomic.Uint64
}

// news is a change of authority.
type news struct{ authority, reason string }

func newClient(h *Hub, number int, m Member, conn Conn) *Client {
	c := &Client{
		hub: h, number: number, conn: conn,
		wake: make(chan struct{}, 1), closing: make(chan struct{}), flushed: make(chan struct{}),
	}
	c.member.Store(&m)
	c.authority.shadow, c.authority.braked, c.authority.since = m.Shadow, h.braked[m.Name], h.cfg.Now()
	c.authority.told = news{authority: "live"} // the welcome says so
	if m.Shadow {
		c.authority.told.authority = "shadow"
	}
	c.authority.stated = c.authority.told
	c.sub.Store(new(filter))
	c.tokens.rate, c.tokens.burst = uint64(h.cfg.FindingRate), uint64(h.cfg.FindingRate)*10
	c.tokens.left, c.tokens.at = c.tokens.burst*second, h.cfg.Now()
	c.inherit(&m)
	return c
}

// Number returns the product's number in the engine.
func (c *Client) Number() int { return c.number }

// Name returns the product's name.
func (c *Client) Name() string { return c.member.Load().Name }

func (c *Client) component() string { return "product." + c.Name() + ".authority" }

func (c *Client) eventsComponent() string { return "product." + c.Name() + ".events" }

func (c *Client) close() {
	if c.closed.CompareAndSwap(false, true) {
		close(c.closing)
	}
	// A question that is being sent right now is sent before Detach goes on.
	c.asking.Lock()
	defer c.asking.Unlock()
}

func (c *Client) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Answer passes a product's answer on. An error is a protocol fault of the product.
func (c *Client) Answer(id uint64, deny, cacheFile bool) error {
	if err := c.hub.verdicts.Answer(c.number, id, deny, cacheFile); err != nil {
		return fmt.Errorf("take answer to question %d: %w", id, err)
	}
	return nil
}

// Extend asks for more time for one question. An error is a protocol fault of the product.
func (c *Client) Extend(id, deadline uint64) error {
	if err := c.hub.verdicts.Extend(c.number, id, deadline); err != nil {
		return fmt.Errorf("extend question %d: %w", id, err)
	}
	return nil
}

// Ack says that the product has handled every event up to seq.
func (c *Client) Ack(seq uint64) {
	c.mu.Lock()
	ok := c.inflight.ack(seq)
	c.mu.Unlock()
	if !ok {
		c.Fault(fmt.Errorf("product acknowledged event %d, which it was not sent", seq))
		return
	}
	c.kick()
}

// Finding publishes what the product detected, unless it reports more than its rate allows: the rest is counted.
func (c *Client) Finding(f *event.FindingDetail) {
	now := c.hub.cfg.Now()
	if !c.tokens.take(now) {
		c.count.findingsDropped.Add(1)
		return
	}
	c.count.findings.Add(1)
	f.Product = c.Name()
	c.hub.Publish(&event.Event{Kind: event.Finding, Time: now, Finding: f})
}

// Fault counts a breach of the protocol and logs it; a product that goes on and on is logged ever more rarely.
func (c *Client) Fault(err error) {
	n := c.faulted.Add(1)
	if n <= 10 || n%1000 == 0 {
		c.hub.cfg.Log.Warn("product broke the protocol", "product", c.Name(), "faults", n, "err", err)
	}
}

// state tells the product its authority as soon as its socket takes it.
func (c *Client) state(authority, reason string) {
	c.asking.Lock()
	c.news = &news{authority, reason}
	c.asking.Unlock()
	c.kick()
}

const second = uint64(1e9)

// tokens is a rate limit with bursts.
type tokens struct {
	mu          sync.Mutex
	rate, burst uint64 // per second; how many at once
	left        uint64 // in billionths
	at          uint64
}

func (t *tokens) take(now uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now > t.at {
		// After a second of silence per unit of burst it is full anyway; the bound keeps the product from overflowing.
		passed := min(now-t.at, t.burst/t.rate*second+second)
		t.left = min(t.left+passed*t.rate, t.burst*second)
		t.at = now
	}
	if t.left < second {
		return false
	}
	t.left -= second
	return true
}
