package link

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"bailey/agent/event"
	productv1 "bailey/api/product/v1"

	"golang.org/x/sys/unix"
)

func TestFullSocketIsSaidAndNothingIsCut(t *testing.T) {
	bothTransports(t, func(t *testing.T, stream bool) {
		c, p := newPair(t, stream, Options{SendBuffer: 4608})
		payload := bytes.Repeat([]byte("x"), 3000)
		sent := uint64(0)
		var err error
		for err == nil {
			if err = c.SendQuestion(sent+1, sent+1, 0, false, false, payload, -1); err == nil {
				sent++
			}
			if sent > 10_000 {
				t.Fatal("the socket is never full")
			}
		}
		if !errors.Is(err, event.ErrFull) {
			t.Fatalf("full socket: %v", err)
		}
		for i := range sent {
			f := p.next()
			if f.ID != i+1 || !bytes.Equal(f.Payload, payload) {
				t.Fatalf("frame %d is cut or out of order: id %d, %d bytes", i+1, f.ID, len(f.Payload))
			}
		}
		if err := c.SendWithdrawn(9); err != nil {
			t.Errorf("after the product has read: %v", err)
		}
		if f := p.next(); f.Kind != productv1.FrameWithdrawn {
			t.Errorf("kind %d", f.Kind)
		}
	})
}

func TestStreamFinishesAFrameItTookInPart(t *testing.T) {
	c, p := newPair(t, true, Options{SendBuffer: 4608})
	payload := bytes.Repeat([]byte("0123456789abcdef"), 3800)
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for i := range uint64(20) {
		if err := c.SendQuestion(i, i, 0, false, false, payload, int(file.Fd())); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := c.SendWithdrawn(1); !errors.Is(err, event.ErrFull) {
				t.Fatalf("behind half a frame: %v", err)
			}
		}
		f := p.next()
		if f.ID != i || !bytes.Equal(f.Payload, payload) || f.FD < 0 {
			t.Fatalf("frame %d: id %d, %d bytes, descriptor %d", i, f.ID, len(f.Payload), f.FD)
		}
		_ = unix.Close(f.FD)
	}
	if err := c.SendQuestion(99, 99, 0, false, false, payload, -1); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil { // with half a frame pending: the flusher must end
		t.Error(err)
	}
}

func TestEventsArePackedAndTheTooLargeIsAnnounced(t *testing.T) {
	bothTransports(t, func(t *testing.T, stream bool) {
		c, p := newPair(t, stream, Options{})
		var batch []event.Packet
		for i := range uint64(100) {
			batch = append(batch, event.Packet{Seq: i + 1, Payload: bytes.Repeat([]byte{byte(i)}, 1000)})
		}
		batch[50].Payload = make([]byte, productv1.MaxFrame)
		batch[60].Payload = make([]byte, productv1.MaxFrame-productv1.HeaderSize)
		sent, err := c.SendEvents(batch)
		if sent != 100 || err != nil {
			t.Fatalf("sent %d, %v", sent, err)
		}
		for i := range uint64(100) {
			f := p.next()
			kind := productv1.FrameEvent
			if i == 50 {
				kind = productv1.FrameLost
			}
			if f.Kind != kind || f.Seq != i+1 {
				t.Fatalf("frame %d: kind %d seq %d", i, f.Kind, f.Seq)
			}
			if i != 50 && !bytes.Equal(f.Payload, batch[i].Payload) {
				t.Fatalf("event %d differs", i+1)
			}
		}
	})
}

func TestFullSocketSaysHowManyEventsWentOut(t *testing.T) {
	bothTransports(t, func(t *testing.T, stream bool) {
		c, p := newPair(t, stream, Options{SendBuffer: 100 << 10})
		batch := make([]event.Packet, 2000)
		for i := range batch {
			batch[i] = event.Packet{Seq: uint64(i + 1), Payload: make([]byte, 500)}
		}
		sent, err := c.SendEvents(batch)
		if !errors.Is(err, event.ErrFull) || sent == 0 || sent == len(batch) {
			t.Fatalf("sent %d, %v", sent, err)
		}
		if n, err := c.SendEvents(batch[sent:]); n != 0 || !errors.Is(err, event.ErrFull) {
			t.Fatalf("again: sent %d, %v", n, err)
		}
		_ = c.Close()
		for i := range sent {
			if f := p.next(); f.Seq != uint64(i+1) {
				t.Fatalf("event %d is number %d", i+1, f.Seq)
			}
		}
		if f, err := p.r.Next(); err == nil {
			t.Fatalf("event %d was not said to be sent", f.Seq)
		}
	})
}
