package hub

import "fmt"

// Promote puts to, which runs beside the product that from is, into its place, in one step: every question is sent to both, and to exactly one of them
// with authority. live is what to is from then on. from goes on under the name besides, in shadow; should to go, from is the product again, in the same
// step, unless it is from that had taken the place of to before. from may be nil: the product is not attached.
func (h *Hub) Promote(to *Client, live Member, from *Client, besides string) error {
	h.order.Lock()
	defer h.order.Unlock()
	b := h.book.Load()
	if b.clients[to.number] != to {
		return fmt.Errorf("promote release %s of %s: it is not attached", live.Release, live.Name)
	}
	if from != nil && b.clients[from.number] != from {
		from = nil
	}
	was := to.Name()
	delete(h.ever, was)
	if from != nil {
		standby := *from.member.Load()
		aside := standby
		aside.Name, aside.Beside, aside.Shadow = besides, standby.Name, true
		h.rename(from, &aside)
		if from.heir != to {
			from.standby, to.heir = &standby, from
		}
		from.heir = nil
	}
	to.standby = nil
	h.rename(to, &live)
	h.rewrite(func(*book) {})
	h.renamed(to, "it takes the place of the release before")
	if from != nil {
		h.renamed(from, "another release took its place")
	}
	h.changed("promotion")
	return nil
}

// rename gives a client another name, and with it other grants. Caller holds order and makes the next book.
func (h *Hub) rename(c *Client, m *Member) {
	h.cfg.Health.Remove(c.component())
	h.cfg.Health.Remove(c.eventsComponent())
	c.member.Store(m)
	c.cutToGrants(m)
	h.ever[m.Name] = c.number
	h.verdicts.Renamed(c.number, m.Name)
}

// renamed tells what became of a client. Caller holds order.
func (h *Hub) renamed(c *Client, why string) {
	m := c.member.Load()
	c.change(func(a *authority) { a.shadow, a.braked, a.degraded = m.Shadow, h.braked[m.Name], "" }, why)
}

// inherit makes the heir of a client that goes the product again. Caller holds order and makes the next book.
func (h *Hub) inherit(c *Client) *Client {
	heir := c.heir
	c.heir = nil
	if heir == nil || h.book.Load().clients[heir.number] != heir {
		return nil
	}
	live := heir.standby
	heir.standby = nil
	delete(h.ever, heir.Name())
	h.rename(heir, live)
	return heir
}
