package hub

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bailey/agent/event"
)

// tally is the memory that outlives an agent.
type tally struct{ events, questions atomic.Uint64 }

func (t *tally) member(name string) Member {
	m := everything(name)
	m.EventsMade, m.QuestionsMade = &t.events, &t.questions
	return m
}

func ask(h *Hub, id uint64) {
	q := &event.Question{ID: id, Kind: event.Exec}
	v, within := h.Voters(q)
	h.Send(v, q, v.Live&within, 0, 0, false)
}

// A product that three agents have one after the other receives, with what it is told it lost, every number of both
// streams once, whatever the agents had not sent when they ended.
func TestNumbersGoOnWithAnotherAgent(t *testing.T) {
	t.Parallel()
	var kept tally
	var all []frame // as the product reads them
	sub := Subscription{Events: event.KindsOf(event.Exec), Questions: event.KindsOf(event.Exec)}
	var gotEvent, gotQuestion uint64
	for agent, capacity := range []int{20, 7, 0} {
		h, _ := newHub(t, func(c *Config) { c.Window = 12 })
		w := &wire{capacity: capacity}
		c, err := h.Attach(kept.member("p"), w)
		if err != nil {
			t.Fatal(err)
		}
		c.Ack(gotEvent) // crossed the other agent's end: no fault
		if err := c.Continue(gotEvent, gotQuestion); err != nil {
			t.Fatal(err)
		}
		if _, _, refused := c.Subscribe(sub); len(refused) > 0 {
			t.Fatal(refused)
		}
		for i := range 50 {
			h.Publish(&event.Event{Kind: event.Exec})
			if i%5 == 0 {
				ask(h, uint64(agent*1000+i))
			}
		}
		if capacity == 0 { // the last one lives
			waitFor(t, func() bool { c.Ack(w.lastEvent()); return eventsAnnounced(c) && questionsAnnounced(c) })
		} else {
			waitFor(t, func() bool { return w.full() })
		}
		if kept.events.Load() != uint64(50*(agent+1)) || kept.questions.Load() != uint64(10*(agent+1)) {
			t.Errorf("agent %d left %d events and %d questions", agent, kept.events.Load(), kept.questions.Load())
		}
		if s := c.Stats(); s.Faults != 0 || s.Events != s.Sent+uint64(s.Queued)+s.Dropped {
			t.Errorf("agent %d: %+v", agent, s)
		}
		h.Detach(c)
		h.Publish(&event.Event{Kind: event.Exec}) // nobody's: the memory may be gone by now
		frames := w.read(0)
		for _, f := range frames {
			switch f.kind {
			case "event", "lost":
				gotEvent = f.to
			case "question", "lost_question":
				gotQuestion = f.to
			}
			if strings.HasPrefix(f.kind, "lost") && agent > 0 && f.text != causeRestart && f.text != causeFull {
				t.Errorf("lost for %q", f.text)
			}
		}
		all = append(all, frames...)
	}
	contiguous(t, all, 150, "event", "lost")
	contiguous(t, all, 30, "question", "lost_question")
	restarts := 0
	for _, f := range all {
		if f.kind == "lost" && f.text == causeRestart {
			restarts++
		}
	}
	if restarts == 0 {
		t.Error("no loss to a restart of the agent is announced")
	}
}

func (w *wire) full() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.used >= w.capacity
}

func (w *wire) lastEvent() uint64 {
	var last uint64
	for _, f := range w.of("event") {
		last = f.seq
	}
	return last
}

func TestContinueRefusesWhatNobodyMade(t *testing.T) {
	t.Parallel()
	var kept tally
	kept.events.Store(5)
	kept.questions.Store(2)
	for _, claim := range [][2]uint64{{6, 2}, {5, 3}} {
		h, _ := newHub(t, nil)
		c, err := h.Attach(kept.member("p"), &wire{})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Continue(claim[0], claim[1]); err == nil {
			t.Errorf("event %d and question %d were taken", claim[0], claim[1])
		}
	}
}

func TestContinueWithNothingLostSaysNothing(t *testing.T) {
	t.Parallel()
	var kept tally
	kept.events.Store(5)
	kept.questions.Store(2)
	h, _ := newHub(t, nil)
	w := &wire{}
	c, err := h.Attach(kept.member("p"), w)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Continue(5, 2); err != nil {
		t.Fatal(err)
	}
	c.Subscribe(Subscription{Events: event.KindsOf(event.Exec), Questions: event.KindsOf(event.Exec)})
	h.Publish(&event.Event{Kind: event.Exec})
	ask(h, 1)
	if !c.Drain(10 * time.Second) {
		t.Fatal("not drained")
	}
	for _, f := range w.read(0) {
		if strings.HasPrefix(f.kind, "lost") || f.kind == "event" && f.seq != 6 || f.kind == "question" && f.seq != 3 {
			t.Errorf("%+v", f)
		}
	}
	if len(w.of("event")) != 1 || len(w.of("question")) != 1 {
		t.Errorf("frames %+v", w.read(0))
	}
}

func TestDrainGivesUp(t *testing.T) {
	t.Parallel()
	h, _ := newHub(t, nil)
	w := &wire{capacity: 1}
	c := attach(t, h, everything("p"), w, Subscription{Events: event.KindsOf(event.Exec)})
	for range 3 {
		h.Publish(&event.Event{Kind: event.Exec})
	}
	if c.Drain(20 * time.Millisecond) {
		t.Error("drained into a full socket")
	}
	w.read(3)
	w.mu.Lock()
	w.capacity = 0
	w.mu.Unlock()
	if !c.Drain(10 * time.Second) {
		t.Error("not drained with room")
	}
}
