package link

import (
	"fmt"

	"bailey/agent/event"
	productv1 "bailey/api/product/v1"
	"bailey/api/product/v1/wire"
)

// CauseTooLarge is the cause of a Lost frame that stands for an event whose payload does not fit a frame.
const CauseTooLarge = "too_large"

// SendQuestion sends one question with the descriptor fd of its file, -1 for none. It does not allocate.
func (c *Conn) SendQuestion(id, seq, deadline uint64, shadow, critical bool, payload []byte, fd int) error {
	h := productv1.Header{Kind: productv1.FrameQuestion, ID: id, Seq: seq, Deadline: deadline}
	if shadow {
		h.Flags |= productv1.FlagShadow
	}
	if critical {
		h.Flags |= productv1.FlagCritical
	}
	return sendError(c.sock.Send(&h, payload, fd, wire.Try))
}

// SendEvents packs events into datagrams and sends them in order. It returns how many went out; the rest were not sent,
// for the reason in err. An event too large for a frame is announced by Lost in its place and counts as sent.
func (c *Conn) SendEvents(batch []event.Packet) (sent int, err error) {
	c.packing.Lock()
	defer c.packing.Unlock()
	b := c.pack[:0]
	for i := range batch {
		size := productv1.HeaderSize + len(batch[i].Payload)
		if len(b) > 0 && len(b)+size > productv1.MaxDatagram {
			if err := sendError(c.sock.SendPacked(b, wire.Try)); err != nil {
				return sent, err
			}
			sent, b = i, b[:0]
		}
		if size > productv1.MaxFrame {
			lost := productv1.Lost{From: batch[i].Seq, To: batch[i].Seq, Cause: CauseTooLarge}
			if b, err = appendFrame(b, &productv1.Header{Kind: productv1.FrameLost, Seq: batch[i].Seq}, &lost); err != nil {
				return sent, err
			}
			continue
		}
		h := productv1.Header{Kind: productv1.FrameEvent, Seq: batch[i].Seq, Length: uint32(size)}
		at := len(b)
		b = b[:at+productv1.HeaderSize]
		h.Put(b[at:])
		b = append(b, batch[i].Payload...)
	}
	if err := sendError(c.sock.SendPacked(b, wire.Try)); err != nil {
		return sent, err
	}
	return len(batch), nil
}

// SendLost announces that the product's own numbers from..to, both included, were not delivered.
func (c *Conn) SendLost(questions bool, from, to uint64, cause string) error {
	m := productv1.Lost{From: from, To: to, Cause: cause}
	if questions {
		m.Stream = productv1.Lost_questions
	}
	return c.sendMessage(&productv1.Header{Kind: productv1.FrameLost, Seq: to}, &m)
}

// SendState tells the product its authority.
func (c *Conn) SendState(authority, reason string) error {
	return c.sendMessage(&productv1.Header{Kind: productv1.FrameState}, &productv1.State{Authority: authority, Reason: reason})
}

// SendWithdrawn tells the product that nobody waits for its answer to question id any more.
func (c *Conn) SendWithdrawn(id uint64) error {
	h := productv1.Header{Kind: productv1.FrameWithdrawn, ID: id}
	return sendError(c.sock.Send(&h, nil, -1, wire.Try))
}

// SendWelcome sends the first frame.
func (c *Conn) SendWelcome(m *productv1.Welcome) error {
	return c.sendMessage(&productv1.Header{Kind: productv1.FrameWelcome}, m)
}

// SendResume sends the first frame on a socket that another agent had before. The product's reply names id.
func (c *Conn) SendResume(id uint64, m *productv1.Welcome) error {
	return c.sendMessage(&productv1.Header{Kind: productv1.FrameResume, ID: id}, m)
}

// SendSubscribed replies to Subscribe.
func (c *Conn) SendSubscribed(m *productv1.Subscribed) error {
	return c.sendMessage(&productv1.Header{Kind: productv1.FrameSubscribed}, m)
}

// SendRuleStatus tells the product what became of a rule: the reply to request, or 0.
func (c *Conn) SendRuleStatus(request uint64, m *productv1.RuleStatus) error {
	return c.sendMessage(&productv1.Header{Kind: productv1.FrameRuleStatus, ID: request}, m)
}

// SendStop asks the product to finish and exit before deadline, in nanoseconds since boot.
func (c *Conn) SendStop(deadline uint64) error {
	h := productv1.Header{Kind: productv1.FrameStop, Deadline: deadline}
	return sendError(c.sock.Send(&h, nil, -1, wire.Try))
}

type message interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
}

func (c *Conn) sendMessage(h *productv1.Header, m message) error {
	b, err := appendFrame(nil, h, m)
	if err != nil {
		return err
	}
	return sendError(c.sock.Send(h, b[productv1.HeaderSize:], -1, wire.Try))
}

// appendFrame appends a frame with the payload m to b.
func appendFrame(b []byte, h *productv1.Header, m message) ([]byte, error) {
	size := m.SizeVT()
	if productv1.HeaderSize+size > productv1.MaxFrame {
		return b, ErrTooLarge
	}
	h.Length = uint32(productv1.HeaderSize + size)
	at := len(b)
	b = append(b, make([]byte, h.Length)...)
	h.Put(b[at:])
	if _, err := m.MarshalToSizedBufferVT(b[at+productv1.HeaderSize:]); err != nil {
		return b[:at], fmt.Errorf("encode frame of kind %d: %w", h.Kind, err)
	}
	return b, nil
}
