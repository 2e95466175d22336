package hub

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
	"github.com/google/go-cmp/cmp"
)

func TestQuestionsAreNumberedAndLossIsAnnounced(t *testing.T) {
	t.Parallel()
	h, _ := newHub(t, nil)
	ask := Subscription{Questions: event.KindsOf(event.Exec)}
	w, other, dead := &wire{capacity: 2}, &wire{}, &wire{broken: true}
	attach(t, h, everything("narrow"), w, ask)
	attach(t, h, everything("wide"), other, ask)
	attach(t, h, everything("dead"), dead, ask)
	full := make([]bool, 0, 6)
	for id := range uint64(6) {
		if id == 4 {
			w.read(2)
		}
		q := &event.Question{ID: id + 1, Kind: event.Exec}
		v, within := h.Voters(q)
		f, gone := h.Send(v, q, (v.Live|v.Shadow)&within, event.ProductBit(1), 99, id == 0)
		if gone != event.ProductBit(2) {
			t.Errorf("gone %b", gone)
		}
		full = append(full, f == event.ProductBit(0))
	}
	// The two slots that were read go to the announcement and the fifth question, whoever sent the announcement first.
	if d := cmp.Diff([]bool{false, false, true, true, false, true}, full); d != "" {
		t.Error(d)
	}
	w.mu.Lock()
	w.capacity = 0
	w.mu.Unlock()
	waitFor(t, func() bool { return len(w.of("lost_question")) == 2 })
	contiguous(t, w.read(0), 6, "question", "lost_question")
	contiguous(t, other.read(0), 6, "question", "lost_question")
	if q := other.of("question"); !q[0].shadow || !q[0].critical || q[1].critical {
		t.Errorf("flags of %+v", q[:2])
	}
}

// waitFor waits for another goroutine's work where the real clock runs.
func waitFor(tb testing.TB, cond func() bool) {
	tb.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if <-tick.C; time.Now().After(deadline) {
			tb.Fatal("it did not happen within a minute")
		}
	}
}

func TestSendReachesTheVotersOfItsSnapshotOnly(t *testing.T) {
	t.Parallel()
	h, _ := newHub(t, nil)
	ask := Subscription{Questions: event.KindsOf(event.Exec)}
	old := attach(t, h, everything("old"), &wire{}, ask)
	q := &event.Question{ID: 1, Kind: event.Exec}
	v, _ := h.Voters(q)
	h.Detach(old)
	w := &wire{}
	next, err := h.Attach(Member{Name: "old"}, w)
	if err != nil || next.Number() != old.Number() {
		t.Fatalf("number %d, %v", next.Number(), err)
	}
	if _, gone := h.Send(v, q, v.Live, 0, 0, false); gone != v.Live {
		t.Error("a question reached a product that was not asked")
	}
	h.Withdraw(v, 1, v.Live)
	if f := w.read(0); len(f) != 0 {
		t.Errorf("frames %+v", f)
	}
}

func TestEventsWindowAndQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(t, func(c *Config) { c.Window, c.QueueEvents = 10, 20 })
		w := &wire{}
		c := attach(t, h, everything("p"), w, Subscription{Events: event.KindsOf(event.CloseWrite, event.Exit)})
		publish := func(n int, e func() *event.Event) {
			for range n {
				h.Publish(e())
				synctest.Wait()
			}
		}
		publish(30, func() *event.Event { return closeWrite("/x") })
		s := c.Stats()
		if s.Sent != 10 || s.Queued != 15 || s.Dropped != 5 || s.Unacked != 10 {
			t.Errorf("three quarters for others: %+v", s)
		}
		publish(10, func() *event.Event { return &event.Event{Kind: event.Exit} })
		s = c.Stats()
		if s.Sent != 10 || s.Dropped != 5+6 || s.Events != 40 {
			t.Errorf("the last quarter for the process tree: %+v", s)
		}
		for acked := uint64(0); acked < s.Events; {
			f := w.read(0)
			acked = f[len(f)-1].to
			if f[len(f)-1].kind == "event" {
				c.Ack(acked)
			}
			synctest.Wait()
		}
		contiguous(t, w.read(0), 40, "event", "lost")
		if n := len(w.of("lost")); n != 2 {
			t.Errorf("%d announcements, want one before the exits and one after", n)
		}
		c.Ack(99)
		if c.Stats().Faults != 1 {
			t.Error("an Ack of what was never sent is no fault")
		}
	})
}

func TestAFullSocketIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(t, nil)
		w := &wire{capacity: 3}
		attach(t, h, everything("p"), w, Subscription{Events: event.KindsOf(event.CloseWrite)})
		for range 10 {
			h.Publish(closeWrite("/x"))
		}
		for range 5 {
			time.Sleep(20 * time.Millisecond)
			w.read(3)
		}
		synctest.Wait()
		contiguous(t, w.read(0), 10, "event", "lost")
	})
}

func TestTooLargeAnEventIsAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(t, func(c *Config) { c.Encoder = huge{} })
		w := &wire{}
		attach(t, h, everything("p"), w, Subscription{Events: event.KindsOf(event.CloseWrite)})
		h.Publish(closeWrite("/x"))
		synctest.Wait()
		if l := w.of("lost"); len(l) != 1 || l[0].seq != 1 {
			t.Errorf("frames %+v", w.frames)
		}
	})
}

type huge struct{ numbers }

func (huge) AppendEvent(dst []byte, _ *event.Event) []byte {
	return append(dst, make([]byte, maxPayload+1)...)
}

func TestTap(t *testing.T) {
	t.Parallel()
	h, _ := newHub(t, nil)
	tap := h.Tap(event.KindsOf(event.Exit), 2)
	for range 5 {
		h.Publish(&event.Event{Kind: event.Exit})
		h.Publish(&event.Event{Kind: event.Fork})
	}
	next := func() string {
		e, lost, err := tap.Next(t.Context())
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(e.Seq, " after ", lost)
	}
	got := []string{next(), next()}
	h.Publish(&event.Event{Kind: event.Exit})
	got = append(got, next(), fmt.Sprint(tap.Dropped()))
	if d := cmp.Diff([]string{"1 after 0", "3 after 0", "11 after 3", "3"}, got); d != "" {
		t.Error(d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := tap.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	tap.Close()
	tap.Close()
	if _, _, err := tap.Next(t.Context()); !errors.Is(err, ErrTapClosed) {
		t.Error(err)
	}
	if h.Wants(event.Exit) {
		t.Error("a closed tap is still wanted")
	}
}

// TestPassiveTap: it hears what is there to hear, and makes nobody produce more.
func TestPassiveTap(t *testing.T) {
	t.Parallel()
	var told []event.KindSet
	h, _ := newHub(t, func(c *Config) {
		c.OnSubscriptions = func(events, _ event.KindSet, _ []string) { told = append(told, events) }
	})
	tap := h.TapPassive(event.KindsOf(event.Exec, event.Verdict), 10)
	if len(told) != 0 {
		t.Errorf("the sensors were told %v", told)
	}
	if !h.Wants(event.Verdict) || h.Wants(event.Exit) {
		t.Error("verdicts must be made for it, and nothing that it does not listen to")
	}
	h.Publish(&event.Event{Kind: event.Exec}) // produced for a question's sake
	h.Publish(&event.Event{Kind: event.Exit})
	active := h.Tap(event.KindsOf(event.Exit), 10)
	h.Publish(&event.Event{Kind: event.Verdict})
	active.Close()
	tap.Close()
	if d := cmp.Diff([]event.KindSet{event.KindsOf(event.Exit), 0}, told); d != "" {
		t.Error(d)
	}
	var got []uint64
	for {
		e, lost, ok := tap.Poll()
		if !ok {
			break
		}
		got = append(got, e.Seq, lost)
	}
	if d := cmp.Diff([]uint64{1, 0, 3, 0}, got); d != "" {
		t.Error(d)
	}
	if h.Wants(event.Verdict) {
		t.Error("a closed tap is still heard")
	}
}

func TestFindingsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(t, func(c *Config) { c.FindingRate = 5 })
		c := attach(t, h, everything("p"), &wire{}, Subscription{})
		tap := h.Tap(event.KindsOf(event.Finding), 1000)
		burst := func() {
			for range 100 {
				c.Finding(&event.FindingDetail{Product: "someone else", Rule: "r"})
			}
		}
		burst()
		if s := c.Stats(); s.Findings != 50 || s.FindingsDropped != 50 {
			t.Errorf("%+v", s)
		}
		time.Sleep(2 * time.Second)
		burst()
		time.Sleep(24 * 365 * time.Hour)
		burst()
		if s := c.Stats(); s.Findings != 50+10+50 {
			t.Errorf("%+v", s)
		}
		if e, _, _ := tap.Next(t.Context()); e.Finding.Product != "p" {
			t.Errorf("finding of %q", e.Finding.Product)
		}
	})
}

func TestDegradedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := health.NewRegistry()
		h, _ := newHub(t, func(c *Config) { c.Health = reg })
		w := &wire{capacity: 1}
		w.used = 1
		c := attach(t, h, everything("p"), w, Subscription{})
		tap := h.Tap(event.KindsOf(event.Product), 10)
		h.SetDegraded(c.Number(), true, "missed 3 questions in a row")
		time.Sleep(time.Second)
		if len(w.frames) != 0 {
			t.Fatal("the wire took more than it can")
		}
		w.read(1)
		time.Sleep(time.Second)
		if s := w.of("state"); len(s) != 1 || s[0].text != "degraded: missed 3 questions in a row" {
			t.Errorf("told %+v", s)
		}
		if e, _, _ := tap.Next(t.Context()); e.Product.Authority != "degraded" || e.Product.Product != "p" {
			t.Errorf("event %+v", e.Product)
		}
		if l := reg.List(); len(l) != 1 || l[0].Status != health.Degraded || !strings.Contains(l[0].Summary, "3 questions") {
			t.Errorf("health %+v", l)
		}
		h.SetDegraded(c.Number(), false, "no miss in 30s")
		if reg.Worst() != health.OK {
			t.Error("health did not recover")
		}
		h.SetDegraded(63, true, "nobody")
	})
}

func TestAttachBounds(t *testing.T) {
	t.Parallel()
	h, e := newHub(t, nil)
	var clients []*Client
	for i := range event.MaxProducts {
		clients = append(clients, attach(t, h, everything(fmt.Sprint("p", i)), &wire{}, Subscription{}))
	}
	if _, err := h.Attach(everything("one more"), &wire{}); err == nil {
		t.Error("a 65th product was attached")
	}
	h.Detach(clients[7])
	h.Detach(clients[7])
	c := attach(t, h, everything("another"), &wire{}, Subscription{})
	if c.Number() != 7 {
		t.Errorf("number %d", c.Number())
	}
	e.take()
	if err := c.Answer(5, true, false); err != nil {
		t.Error(err)
	}
	if err := c.Answer(0, true, false); err == nil {
		t.Error("the engine's error is not passed on")
	}
	if err := c.Extend(5, 6); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff([]string{"answer 7 5 true false", "answer 7 0 true false", "extend 7 5 6"}, e.take()); d != "" {
		t.Error(d)
	}
	h.Close()
	if _, err := h.Attach(everything("late"), &wire{}); err == nil {
		t.Error("attached to a closed hub")
	}
	if _, _, refused := c.Subscribe(Subscription{}); len(refused) == 0 {
		t.Error("a detached product subscribed")
	}
}
