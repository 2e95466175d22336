package hub

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"bailey/agent/event"
	"bailey/agent/health"
)

// Config configures a Hub. Encoder and Now are required.
type Config struct {
	Encoder Encoder
	Now     func() uint64 // nanoseconds since boot (CLOCK_BOOTTIME)

	QueueEvents int // events waiting for one product; default 16,384
	QueueBytes  int // their payload; default 16 MiB
	WindowBytes int // the same in bytes, the socket's overhead included; default 256 KiB, a fraction of the link's buffer
	Window      int // events sent and not acknowledged; default 8,192
	FindingRate int // findings per second and product, with bursts of ten times as many; default 100

	// OnSubscriptions hears what products and taps want in all, whenever that changed: sensors set their marks by it. scope
	// is the union of the open scopes of those that ask about open. Called in order, never on the question path.
	OnSubscriptions func(events, questions event.KindSet, scope []string)

	Log    *slog.Logger
	Health *health.Registry
}

// Defaults of Config.
const (
	DefaultQueueEvents = 16 << 10
	DefaultQueueBytes  = 16 << 20
	DefaultWindow      = 8 << 10
	DefaultWindowBytes = 256 << 10
	DefaultFindingRate = 100
)

// Hub connects sensors, products and the verdict engine. Safe for concurrent use.
type Hub struct {
	cfg      Config
	verdicts Verdicts
	book     atomic.Pointer[book] // what the question path and Publish read
	buffers  sync.Pool            // *[]byte, one per question being sent
	packets  sync.Pool            // *packet

	order   sync.Mutex // keeps the hooks in the order of the changes
	told    wanted     // what OnSubscriptions heard last
	closed  bool
	ever    map[string]int    // the number that a product had before
	braked  map[string]string // whose denies do not count, and why
	publish sync.Mutex        // guards seq and the order of events in all queues
	seq     uint64
}

// wanted is the union of all subscriptions.
type wanted struct {
	events, questions event.KindSet
	scope             []string
}

// New returns a hub. Bind must be called before the first Attach.
func New(cfg Config) (*Hub, error) {
	if cfg.Encoder == nil || cfg.Now == nil {
		return nil, errors.New("make hub: Encoder and Now are required")
	}
	for v, d := range map[*int]int{
		&cfg.QueueEvents: DefaultQueueEvents, &cfg.QueueBytes: DefaultQueueBytes,
		&cfg.Window: DefaultWindow, &cfg.WindowBytes: DefaultWindowBytes, &cfg.FindingRate: DefaultFindingRate,
	} {
		if *v < 0 {
			return nil, fmt.Errorf("make hub: a bound of %d", *v)
		}
		if *v == 0 {
			*v = d
		}
	}
	if cfg.OnSubscriptions == nil {
		cfg.OnSubscriptions = func(event.KindSet, event.KindSet, []string) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Health == nil {
		cfg.Health = health.NewRegistry()
	}
	h := &Hub{cfg: cfg, ever: make(map[string]int), braked: make(map[string]string)}
	h.buffers.New = func() any { b := make([]byte, 0, 4096); return &b }
	h.packets.New = func() any { return &packet{b: make([]byte, 0, 512)} }
	h.book.Store(new(book))
	return h, nil
}

// Bind names the engine. The hub and the engine need one another, so one of them learns it after its making.
func (h *Hub) Bind(v Verdicts) { h.verdicts = v }

// Member is a product as the operator granted it.
type Member struct {
	Name, Release string
	Beside        string        // the product that it runs beside; empty for a product itself
	Shadow        bool          // its answers are recorded and never count
	See           event.KindSet // events it may get
	Decide        event.KindSet // questions it may be asked
	Deny          bool          // its deny counts
	DenyCritical  bool          // for the critical set as well
	MissDenies    bool          // on_miss = deny
	OpenScope     []string      // where it may be asked about open; "/" for everywhere

	// EventsMade and QuestionsMade, if set, always hold the product's last numbers, in memory that outlives the agent. What
	// they hold at Attach, an earlier agent made: the count goes on from there.
	EventsMade, QuestionsMade *atomic.Uint64
}

// Attach adds a product. It gets nothing until it subscribes.
func (h *Hub) Attach(m Member, conn Conn) (*Client, error) {
	if h.verdicts == nil {
		return nil, errors.New("attach product: the hub has no verdict engine yet")
	}
	h.order.Lock()
	defer h.order.Unlock()
	if h.closed {
		return nil, fmt.Errorf("attach product %s: the hub is closed", m.Name)
	}
	i, err := h.number(m.Name)
	if err != nil {
		return nil, err
	}
	h.verdicts.Joined(i, m.Name)
	c := newClient(h, i, m, conn)
	h.rewrite(func(b *book) { b.clients[i] = c })
	go c.flush()
	c.change(func(*authority) {}, "") // tells that it is braked, if it is
	return c, nil
}

// number chooses a product's number, the same as before where that is free, so that its totals go on over restarts.
func (h *Hub) number(name string) (int, error) {
	b := h.book.Load()
	if i, ok := h.ever[name]; ok && b.clients[i] == nil {
		return i, nil
	}
	taken := make(map[int]bool, len(h.ever))
	for _, i := range h.ever {
		taken[i] = true
	}
	spare := -1
	for i, c := range b.clients {
		switch {
		case c != nil:
		case !taken[i]:
			h.ever[name] = i
			return i, nil
		case spare < 0:
			spare = i
		}
	}
	if spare < 0 {
		return 0, fmt.Errorf("attach product %s: %d products are attached already", name, event.MaxProducts)
	}
	for other, i := range h.ever {
		if i == spare {
			delete(h.ever, other)
		}
	}
	h.ever[name] = spare
	return spare, nil
}

// Detach removes a product: what it was asked counts as missed, and nothing more is sent to it when Detach returns.
func (h *Hub) Detach(c *Client) {
	h.order.Lock()
	defer h.order.Unlock()
	if h.book.Load().clients[c.number] != c {
		return
	}
	heir := h.inherit(c)
	h.rewrite(func(b *book) { b.clients[c.number] = nil })
	c.close()
	c.forgetTally()
	h.verdicts.Gone(c.number)
	h.cfg.Health.Remove(c.component())
	if heir != nil {
		h.renamed(heir, "the release that took its place is gone")
	}
	if m := c.member.Load(); m.Beside != "" || heir != nil { // its number is nobody's
		if h.ever[m.Name] == c.number {
			delete(h.ever, m.Name)
		}
		h.verdicts.Renamed(c.number, "")
	}
	h.changed("product_detached")
	<-c.flushed
	h.cfg.Health.Remove(c.eventsComponent())
}

// Regrant replaces what the operator granted to an attached product. Its subscription is cut down to the new grants.
func (h *Hub) Regrant(c *Client, m Member) {
	h.order.Lock()
	defer h.order.Unlock()
	c.member.Store(&m)
	c.cutToGrants(&m)
	h.rewrite(func(*book) {})
	h.changed("grants")
	c.change(func(a *authority) { a.shadow = m.Shadow }, "the operator changed its grants")
}

// Close detaches all products.
func (h *Hub) Close() {
	h.order.Lock()
	h.closed = true
	h.order.Unlock()
	for _, c := range h.book.Load().clients {
		if c != nil {
			h.Detach(c)
		}
	}
}

// changed passes a change of subscriptions or grants on. Caller holds order and has made the new book.
func (h *Hub) changed(cause string) {
	w := h.book.Load().wanted()
	if w.events != h.told.events || w.questions != h.told.questions || !slices.Equal(w.scope, h.told.scope) {
		h.told = w
		h.cfg.OnSubscriptions(w.events, w.questions, w.scope)
	}
	if cause == "" {
		return
	}
	if err := h.verdicts.Invalidate(cause); err != nil {
		h.cfg.Log.Error("cached verdicts may be out of date", "err", err)
	}
}
