package hub

import "bailey/agent/event"

// maxPayload is what fits into one frame of the protocol behind its header.
const maxPayload = 64<<10 - 32

// Publish gives e its number and queues it for all who want it. It never blocks on a product. e is the hub's to number and
// nobody's to change afterwards.
func (h *Hub) Publish(e *event.Event) {
	h.publish.Lock()
	defer h.publish.Unlock()
	h.seq++
	e.Seq = h.seq
	b := h.book.Load()
	if !b.heard.Has(e.Kind) {
		return
	}
	for _, t := range b.taps {
		t.offer(e)
	}
	var p *packet
	for _, c := range b.clients {
		if c == nil || !c.sub.Load().wants(e) {
			continue
		}
		if p == nil {
			p = h.packets.Get().(*packet)
			p.b = h.cfg.Encoder.AppendEvent(p.b[:0], e)
			p.refs.Store(1)
		}
		c.enqueue(e.Kind, p)
	}
	if p != nil {
		h.drop(p)
	}
}

// Wants reports whether anybody, passive taps included, is told of events of this kind.
func (h *Hub) Wants(k event.Kind) bool { return h.book.Load().heard.Has(k) }

// enqueue queues p, or notes its loss.
func (c *Client) enqueue(k event.Kind, p *packet) {
	c.mu.Lock()
	c.seq++
	if c.events != nil {
		c.events.Store(c.seq) // before it can be sent: a product knows no number that this memory does not
	}
	if len(p.b) <= maxPayload && c.hub.room(&c.queue, k) {
		p.refs.Add(1)
		c.queue.add(c.seq, p)
	} else {
		c.queue.lose(c.seq)
		c.count.dropped.Add(1)
	}
	c.mu.Unlock()
	c.kick()
}
