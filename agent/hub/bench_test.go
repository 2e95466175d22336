package hub

import (
	"fmt"
	"testing"

	"bailey/agent/event"
)

// sink takes everything and acknowledges every batch at once.
type sink struct {
	wire
	c *Client
}

func (s *sink) SendEvents(b []event.Packet) (int, error) {
	s.c.Ack(b[len(b)-1].Seq)
	return len(b), nil
}

func (s *sink) SendQuestion(uint64, uint64, uint64, bool, bool, []byte, int) error { return nil }

func sinks(tb testing.TB, n int) *Hub {
	h, _ := newHub(tb, nil)
	for i := range n {
		s := &sink{}
		c, err := h.Attach(everything(fmt.Sprint("p", i)), s)
		if err != nil {
			tb.Fatal(err)
		}
		s.c = c
		c.Subscribe(Subscription{Events: event.KindsOf(event.Exec), Questions: event.KindsOf(event.Exec)})
	}
	return h
}

func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{0, 1, 8} {
		b.Run(fmt.Sprintf("products_%d", n), func(b *testing.B) {
			h := sinks(b, n)
			e := &event.Event{Kind: event.Exec}
			b.ReportAllocs()
			for b.Loop() {
				h.Publish(e)
			}
		})
	}
}

// BenchmarkPublishPassive is what the recorder's tap costs whoever publishes: its reader polls, so that it need not be woken.
func BenchmarkPublishPassive(b *testing.B) {
	h, _ := newHub(b, nil)
	tap := h.TapPassive(event.KindsOf(event.Exec), 16<<10)
	defer tap.Close()
	e := &event.Event{Kind: event.Exec}
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		h.Publish(e)
		if n++; n%1000 == 0 {
			for range 1000 {
				tap.Poll()
			}
		}
	}
}

func BenchmarkSend(b *testing.B) {
	for _, n := range []int{1, 4, 8} {
		b.Run(fmt.Sprintf("products_%d", n), func(b *testing.B) {
			h := sinks(b, n)
			q := &event.Question{ID: 1, Kind: event.Exec}
			b.ReportAllocs()
			for b.Loop() {
				v, within := h.Voters(q)
				h.Send(v, q, v.Live&within, 0, 0, false)
			}
		})
	}
}

func TestNothingIsAllocatedWhereNobodyListens(t *testing.T) {
	h := sinks(t, 0)
	e := &event.Event{Kind: event.Exec}
	if n := testing.AllocsPerRun(1000, func() { h.Publish(e) }); n != 0 {
		t.Errorf("%v allocations per event that nobody wants", n)
	}
}

func TestSendAllocatesNothing(t *testing.T) {
	h := sinks(t, 8)
	q := &event.Question{ID: 1, Kind: event.Exec}
	if n := testing.AllocsPerRun(1000, func() {
		v, within := h.Voters(q)
		h.Send(v, q, v.Live&within, 0, 0, false)
	}); n != 0 {
		t.Errorf("%v allocations per question to 8 products", n)
	}
}
