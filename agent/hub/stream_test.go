package hub

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"bailey/agent/event"
)

// TestNothingIsLostSilently: publishers, askers and products that read at random; whatever each product received and was
// told it lost is together every number of both of its streams, and every event arrived with its own content.
func TestNothingIsLostSilently(t *testing.T) {
	t.Parallel()
	h, _ := newHub(t, func(c *Config) { c.Window, c.QueueEvents, c.WindowBytes = 40, 64, 8<<10 })
	const products, publishers, each = 6, 3, 1500
	clients := make([]*Client, products)
	wires := make([]*wire, products)
	kinds := event.KindsOf(event.Exec, event.Exit, event.CloseWrite)
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for i := range products {
		wires[i] = &wire{capacity: 20 + 10*i}
		clients[i] = attach(t, h, everything(fmt.Sprint("p", i)), wires[i], Subscription{
			Events: kinds, Questions: event.KindsOf(event.Exec),
		})
		readers.Go(func() { readAtRandom(clients[i], wires[i], uint64(i), stop) })
	}
	tap := h.Tap(kinds, publishers*each)
	for p := range publishers {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(p), 1))
			for range each {
				h.Publish(&event.Event{Kind: kinds.List()[r.IntN(3)]})
			}
		})
	}
	writers.Go(func() {
		for id := range uint64(each) {
			q := &event.Question{ID: id + 1, Kind: event.Exec}
			v, within := h.Voters(q)
			h.Send(v, q, v.Live&within, 0, 0, false)
		}
	})
	writers.Wait()
	for _, c := range clients {
		waitFor(t, func() bool {
			s := c.Stats()
			return s.Sent+s.Dropped == publishers*each && s.Queued == 0 && questionsAnnounced(c) && eventsAnnounced(c)
		})
	}
	close(stop)
	readers.Wait()

	// The hub tells itself that products lose events; those have global numbers too, and nobody here wants them.
	order := []uint64{0}
	for range publishers * each {
		e, lost, err := tap.Next(t.Context())
		if err != nil || lost != 0 || e.Seq <= order[len(order)-1] || e.Seq > publishers*each+2*products {
			t.Fatalf("tap: event %d after %d lost, %v", e.Seq, lost, err)
		}
		order = append(order, e.Seq)
	}
	for i, c := range clients {
		s := c.Stats()
		frames := wires[i].read(0)
		contiguous(t, frames, publishers*each, "event", "lost")
		contiguous(t, frames, each, "question", "lost_question")
		var events, questions, lost uint64
		for _, f := range frames {
			switch f.kind {
			case "event":
				events++
				// All kinds are subscribed, so the product's own number says which of the published ones was encoded.
				if n := binary.LittleEndian.Uint64(f.payload); n != order[f.seq] {
					t.Fatalf("event %d carries the content of %d", f.seq, n)
				}
			case "lost":
				lost += f.to - f.seq + 1
			case "question":
				questions++
				if binary.LittleEndian.Uint64(f.payload) != f.id {
					t.Fatalf("question %d carries other content", f.id)
				}
			}
		}
		if s.Sent != events || s.Dropped != lost || s.Questions != questions || s.Questions+s.Unsent != each {
			t.Errorf("%s: counted %+v; received %d events, %d lost, %d questions", s.Name, s, events, lost, questions)
		}
	}
}

func questionsAnnounced(c *Client) bool {
	c.asking.Lock()
	defer c.asking.Unlock()
	return c.questionLost.from == 0
}

func eventsAnnounced(c *Client) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queue.n == 0 && c.queue.tail.from == 0
}

// readAtRandom reads a few frames now and then and acknowledges what it read, until stop.
func readAtRandom(c *Client, w *wire, seed uint64, stop <-chan struct{}) {
	r := rand.New(rand.NewPCG(seed, 2))
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		for _, f := range w.read(r.IntN(30)) {
			if f.kind == "event" {
				c.Ack(f.seq)
			}
		}
	}
}

// TestAttachAndDetachUnderLoad: products come and go while events and questions flow.
func TestAttachAndDetachUnderLoad(t *testing.T) {
	t.Parallel()
	h, _ := newHub(t, nil)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for id := uint64(1); ; id++ {
			select {
			case <-stop:
				return
			default:
			}
			h.Publish(&event.Event{Kind: event.Exec})
			q := &event.Question{ID: id, Kind: event.Exec}
			if v, within := h.Voters(q); v != nil {
				h.Send(v, q, v.Live&within, 0, 0, false)
				h.Withdraw(v, id, v.Live&within)
			}
		}
	})
	for i := range 300 {
		w := &wire{capacity: 100}
		c := attach(t, h, everything(fmt.Sprint("p", i%3)), w, Subscription{
			Events: event.KindsOf(event.Exec), Questions: event.KindsOf(event.Exec),
		})
		h.Regrant(c, everything("p"))
		h.Detach(c)
		before := len(w.read(0))
		h.Publish(&event.Event{Kind: event.Exec})
		if after := len(w.read(0)); after != before {
			t.Fatalf("%d frames after Detach", after-before)
		}
	}
	close(stop)
	wg.Wait()
}

// TestTheQuestionPathNeverLogs is F1: with a log that nobody reads, a product that breaks every rule cannot keep another
// one's questions from being sent.
func TestTheQuestionPathNeverLogs(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	fill(t, w)
	h, _ := newHub(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(w, nil)) })
	bad, good := &wire{broken: true}, &wire{}
	ask := Subscription{Events: event.KindsOf(event.Exec), Questions: event.KindsOf(event.Exec)}
	c := attach(t, h, everything("bad"), bad, ask)
	attach(t, h, everything("good"), good, ask)
	stuck := make(chan struct{})
	go func() {
		defer close(stuck)
		c.Fault(fmt.Errorf("nobody reads this"))
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for id := range uint64(1000) {
			q := &event.Question{ID: id + 1, Kind: event.Exec}
			v, within := h.Voters(q)
			h.Send(v, q, v.Live&within, 0, 0, false)
			h.Publish(&event.Event{Kind: event.Exec})
			h.SetDegraded(c.Number(), id%2 == 0, "test")
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("questions wait for the log")
	}
	if n := len(good.of("question")); n != 1000 {
		t.Errorf("%d questions sent", n)
	}
	select {
	case <-stuck:
		t.Error("the log was not full, the test proves nothing")
	default:
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	<-stuck
}

// fill writes to a pipe until it takes nothing more.
func fill(tb testing.TB, w *os.File) {
	tb.Helper()
	if err := w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := w.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	if err := w.SetWriteDeadline(time.Time{}); err != nil {
		tb.Fatal(err)
	}
}
