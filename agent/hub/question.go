package hub

import (
	"errors"

	"bailey/agent/event"
)

// Send offers q to the products in to: encoded once, the same bytes and descriptor for all.
func (h *Hub) Send(v *event.Voters, q *event.Question, to, shadow event.ProductSet, deadline uint64, critical bool) (full, gone event.ProductSet) {
	b, ok := v.Owner.(*book)
	if !ok {
		return 0, to
	}
	buf := h.buffers.Get().(*[]byte)
	*buf = h.cfg.Encoder.AppendQuestion((*buf)[:0], q)
	for ps := to; ps != 0; ps &= ps - 1 {
		i := ps.First()
		c := b.clients[i]
		if c == nil {
			gone |= event.ProductBit(i)
			continue
		}
		switch err := c.ask(q.ID, deadline, shadow.Has(i), critical, *buf, q.FD); {
		case err == nil:
		case errors.Is(err, event.ErrFull):
			full |= event.ProductBit(i)
		default:
			gone |= event.ProductBit(i)
		}
	}
	h.buffers.Put(buf)
	return full, gone
}

// Withdraw tells products that question id is decided.
func (h *Hub) Withdraw(v *event.Voters, id uint64, from event.ProductSet) {
	b, ok := v.Owner.(*book)
	if !ok {
		return
	}
	for ps := from; ps != 0; ps &= ps - 1 {
		if c := b.clients[ps.First()]; c != nil && !c.closed.Load() {
			// It only saves the product work: one that cannot take it answers in vain.
			_ = c.conn.SendWithdrawn(id)
		}
	}
}

// ask sends one question, after the announcement of those that were lost before it.
func (c *Client) ask(id, deadline uint64, shadow, critical bool, payload []byte, fd int) error {
	c.asking.Lock()
	defer c.asking.Unlock()
	if c.closed.Load() {
		return errGone
	}
	c.questionSeq++
	if c.questions != nil {
		c.questions.Store(c.questionSeq)
	}
	err := c.announceLocked()
	if err == nil {
		err = c.conn.SendQuestion(id, c.questionSeq, deadline, shadow, critical, payload, fd)
	}
	if err == nil {
		c.count.questions.Add(1)
		return nil
	}
	c.count.unsent.Add(1)
	if c.questionLost.from == 0 {
		c.questionLost.from = c.questionSeq
	}
	c.questionLost.to = c.questionSeq
	c.kick()
	return err
}

// announceLocked tells the product which questions it did not get. Caller holds asking.
func (c *Client) announceLocked() error {
	if c.questionLost.from == 0 {
		return nil
	}
	if err := c.conn.SendLost(true, c.questionLost.from, c.questionLost.to, c.questionLost.why()); err != nil {
		return err
	}
	c.questionLost = lost{}
	return nil
}

var errGone = errors.New("product is detached")
