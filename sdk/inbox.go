package sdk

import (
	"fmt"
	"sync"

	productv1 "bailey/api/product/v1"
	"bailey/api/product/v1/wire"
)

// inbox is what the reading thread has received for the ordered handlers: whole frames, one behind the other. The agent's
// window of unacknowledged events bounds it. Reader and handler swap two buffers, so that steady state allocates nothing
// and a batch grows with the backlog.
type inbox struct {
	mu     sync.Mutex
	frames []byte
	closed bool
	wake   chan struct{} // capacity 1
}

// add appends a copy of f.
func (b *inbox) add(f wire.Frame) {
	var header [productv1.HeaderSize]byte
	f.Put(header[:])
	b.mu.Lock()
	b.frames = append(append(b.frames, header[:]...), f.Payload...)
	b.mu.Unlock()
	b.signal()
}

// close makes take return false once everything has been taken.
func (b *inbox) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.signal()
}

func (b *inbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take waits for frames and exchanges them for the empty buffer.
func (b *inbox) take(empty []byte) (frames []byte, ok bool) {
	for {
		b.mu.Lock()
		if len(b.frames) > 0 {
			frames, b.frames = b.frames, empty[:0]
			b.mu.Unlock()
			return frames, true
		}
		closed := b.closed
		b.mu.Unlock()
		if closed {
			return nil, false
		}
		<-b.wake
	}
}

// deliver runs the ordered handlers.
func (s *Session) deliver() {
	_ = s.guard(func() error {
		var d deliverer
		d.s = s
		var frames []byte
		for {
			var ok bool
			if frames, ok = s.inbox.take(frames); !ok {
				return nil
			}
			if err := d.batch(frames); err != nil {
				s.stop(err, 0)
				return err
			}
		}
	})
}

// deliverer is the state of the ordered goroutine.
type deliverer struct {
	s        *Session
	last     uint64 // newest event handled or known to be lost
	handled  uint64 // newest event handled
	unacked  int    // events handled since the last Ack
	ackEvery int
}

func (d *deliverer) batch(frames []byte) error {
	if d.ackEvery == 0 {
		d.setWindow()
	}
	for len(frames) > 0 {
		h, payload, rest, err := productv1.Next(frames)
		if err != nil {
			return fmt.Errorf("cut a frame from the inbox: %w", err)
		}
		frames = rest
		if err := d.one(&h, payload); err != nil {
			return err
		}
		if d.unacked >= d.ackEvery {
			d.ack()
		}
	}
	d.ack()
	return nil
}

func (d *deliverer) one(h *productv1.Header, payload []byte) error {
	p := &d.s.product
	switch h.Kind {
	case productv1.FrameEvent:
		e := productv1.EventFromVTPool()
		defer e.ReturnToVTPool()
		if err := e.UnmarshalVTUnsafe(payload); err != nil {
			return fmt.Errorf("decode event %d: %w", h.Seq, err)
		}
		d.gap(h.Seq)
		d.last = h.Seq
		if p.OnEvent != nil {
			p.OnEvent(e)
		}
		d.handled = h.Seq
		d.unacked++
	case productv1.FrameLost:
		m := new(productv1.Lost)
		if err := m.UnmarshalVT(payload); err != nil {
			return fmt.Errorf("decode lost: %w", err)
		}
		l := Lost{Questions: m.GetStream() == productv1.Lost_questions, From: m.GetFrom(), To: m.GetTo(), Cause: m.GetCause()}
		if !l.Questions {
			d.gap(l.From)
			d.last = max(d.last, l.To)
		}
		d.lost(l)
	case productv1.FrameResume:
		d.setWindow()
		if h.Flags&otherAuthority != 0 && p.OnState != nil {
			p.OnState(d.s)
		}
	case productv1.FrameRuleStatus:
		return d.rule(payload)
	case productv1.FrameState:
		if p.OnState != nil {
			p.OnState(d.s)
		}
	}
	return nil
}

// setWindow makes the agent of now hear in time how far the product is.
func (d *deliverer) setWindow() {
	d.ackEvery = max(min(int(d.s.welcome.Load().GetEventWindow())/4, 64), 1)
}

// gap tells the author of events that are missing and were not announced. An agent never does that; a bug may.
func (d *deliverer) gap(seq uint64) {
	if d.last != 0 && seq > d.last+1 {
		d.lost(Lost{From: d.last + 1, To: seq - 1, Cause: "unannounced"})
	}
}

func (d *deliverer) lost(l Lost) {
	if d.s.product.OnLost != nil {
		d.s.product.OnLost(d.s, l)
	}
}

// ack gives the agent room in the window. A failed send is met by the reader too.
func (d *deliverer) ack() {
	if d.unacked == 0 {
		return
	}
	d.unacked = 0
	_ = d.s.sock.Send(&productv1.Header{Kind: productv1.FrameAck, Seq: d.handled}, nil, -1, wire.Block)
}
