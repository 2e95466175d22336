package hub

import (
	"fmt"
	"sync"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
)

// authority is how much a product's answers count, why, and since when. Safe for concurrent use.
type authority struct {
	mu       sync.Mutex
	shadow   bool
	braked   string // why its denies do not count; empty: they do
	degraded string // why it is not waited for; empty: it is
	losing   string // why it does not get all of its events; empty: it does
	since    uint64
	told     news // what everyone was told
	stated   news // what the product was told; of what it loses it hears by Lost
}

// word returns the authority and its reason. What an operator has to end comes before what ends by itself. Caller holds mu.
func (a *authority) word() news {
	n := news{authority: "live"}
	switch {
	case a.shadow:
		n.authority = "shadow"
	case a.braked != "":
		n.authority, n.reason = "braked", a.braked
		if a.degraded != "" {
			n.reason += "; and not waited for: " + a.degraded
		}
	case a.degraded != "":
		n.authority, n.reason = "degraded", a.degraded
	}
	return n
}

// whole is word with what the product loses. Caller holds mu.
func (a *authority) whole() news {
	n := a.word()
	if a.losing != "" && n.reason != "" {
		n.reason += "; "
	}
	n.reason += a.losing
	return n
}

// now returns the authority, its reason, and since when it is so.
func (a *authority) now() (word, reason string, since uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.whole()
	return n.authority, n.reason, a.since
}

// change edits a product's authority and, if that changed anything, tells the product and everyone who wants product events.
// after is the reason where there is none left, e.g. why it returned.
func (c *Client) change(edit func(*authority), after string) {
	a := &c.authority
	a.mu.Lock()
	defer a.mu.Unlock() // to the end: whoever listens hears changes in their order
	edit(a)
	if own := a.word(); own != a.stated {
		a.stated = own
		if own.reason == "" {
			own.reason = after
		}
		c.state(own.authority, own.reason)
	}
	n := a.whole()
	if n == a.told {
		return
	}
	if n.authority != a.told.authority {
		a.since = c.hub.cfg.Now()
	}
	a.told = n
	if n.reason == "" {
		n.reason = after
	}
	m := c.member.Load()
	c.hub.Publish(&event.Event{Kind: event.Product, Time: c.hub.cfg.Now(), Product: &event.ProductDetail{
		Product: m.Name, Release: m.Release, State: "running", Authority: n.authority, Reason: n.reason,
	}})
}

// SetDegraded tells a product, the operator and everyone who wants product events that a product's answers stopped to
// count, or count again. The verdict engine decides it.
func (h *Hub) SetDegraded(number int, degraded bool, reason string) {
	c := h.book.Load().clients[number]
	if c == nil {
		return
	}
	entry := health.Entry{Component: c.component(), Status: health.OK, Summary: "answers count"}
	why := ""
	if degraded {
		why = reason
		entry.Status, entry.Summary = health.Degraded, "not waited for: "+reason
		entry.Remedy = "it returns by itself when it misses nothing; see: bailey product show " + c.Name()
	}
	h.cfg.Health.Set(entry)
	c.change(func(a *authority) { a.degraded = why }, reason)
}

// SetBraked takes the right to deny from a product, whichever run of it is attached now or later, or gives it back. What was
// decided by its denies and is remembered is forgotten before it returns.
func (h *Hub) SetBraked(name string, braked bool, reason string) {
	h.order.Lock()
	defer h.order.Unlock()
	delete(h.braked, name)
	why := ""
	if braked {
		h.braked[name], why = reason, reason
	}
	for _, c := range h.book.Load().clients {
		if c == nil || c.Name() != name {
			continue
		}
		h.rewrite(func(*book) {})
		if braked {
			h.verdicts.Brake(c.number)
		}
		h.changed("brake")
		c.change(func(a *authority) { a.braked = why }, reason)
	}
}

// Authority returns how much an attached product's answers count; empty when it is not attached.
func (h *Hub) Authority(name string) string {
	for _, c := range h.book.Load().clients {
		if c != nil && c.Name() == name {
			word, _, _ := c.authority.now()
			return word
		}
	}
	return ""
}

// Name returns the name of the product that has a number; empty when nobody has.
func (h *Hub) Name(number int) string {
	if number < 0 || number >= event.MaxProducts {
		return ""
	}
	if c := h.book.Load().clients[number]; c != nil {
		return c.Name()
	}
	return ""
}

// lagCalm is how long a product must lose nothing until it counts as reading all of its events again.
const lagCalm = 30 * time.Second

// lag is whether a product reads its events too slowly. Its flusher alone uses it.
type lag struct {
	losing  bool
	dropped uint64 // when it was looked at last
	at      uint64 // when something was seen to be lost last
}

// judgeLag tells when a product begins to lose events and when it has stopped to. It returns when to look again, 0 for not
// before something happens.
func (c *Client) judgeLag(l *lag) time.Duration {
	now, dropped := c.hub.cfg.Now(), c.count.dropped.Load()
	switch {
	case dropped != l.dropped:
		l.dropped, l.at = dropped, now
		if !l.losing {
			l.losing = true
			c.tellLag(true)
		}
		return lagCalm
	case !l.losing:
		return 0
	case now-l.at < uint64(lagCalm):
		return time.Duration(l.at + uint64(lagCalm) - now)
	}
	l.losing = false
	c.tellLag(false)
	return 0
}

func (c *Client) tellLag(losing bool) {
	entry := health.Entry{Component: c.eventsComponent(), Status: health.OK, Summary: "it gets all of its events"}
	why := ""
	if losing {
		why = "loses events: it reads them too slowly"
		entry.Status, entry.Summary = health.Degraded, "it "+why
		entry.Remedy = "its author must make it faster or let it subscribe to less; a higher cpu grant may help: bailey product show " + c.Name()
	}
	c.hub.cfg.Health.Set(entry)
	c.change(func(a *authority) { a.losing = why }, fmt.Sprintf("lost no event in %v", lagCalm))
}
