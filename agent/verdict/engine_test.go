package verdict

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"bailey/agent/event"
	"github.com/google/go-cmp/cmp"
)

// run runs the engine inside a synctest bubble until the test's body returned.
func run(t *testing.T, v *event.Voters, edit func(*Config), body func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, v, edit)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		body(t, b)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		b.balance(t)
	})
}

func (b *bench) want(t *testing.T, q *event.Question, want event.Decision) {
	t.Helper()
	synctest.Wait()
	got, ok := b.k.verdict(q)
	if !ok {
		t.Fatalf("question %d is not answered", q.ID)
	}
	if got != want {
		t.Errorf("verdict %+v, want %+v", got, want)
	}
}

func (b *bench) unanswered(t *testing.T, q *event.Question) {
	t.Helper()
	synctest.Wait()
	if d, ok := b.k.verdict(q); ok {
		t.Fatalf("question %d has the verdict %+v already", q.ID, d)
	}
}

func (b *bench) must(t *testing.T, product int, q *event.Question, deny, cache bool) {
	t.Helper()
	if err := b.Answer(product, q.ID, deny, cache); err != nil {
		t.Fatal(err)
	}
}

func TestDefaultAtTheBudgetAndLateAnswer(t *testing.T) {
	run(t, live(0, 1), nil, func(t *testing.T, b *bench) {
		q := b.k.question(1)
		start := time.Now()
		b.Ask(q)
		b.must(t, 0, q, false, true)
		time.Sleep(399 * time.Millisecond)
		b.unanswered(t, q)
		time.Sleep(2 * time.Millisecond)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByDefault})
		if took := b.k.at[q].Sub(start); took > 401*time.Millisecond {
			t.Errorf("the default came after %v", took)
		}
		if err := b.Answer(1, q.ID, true, false); err != nil {
			t.Errorf("late answer: %v", err)
		}
		if s := b.Stats().Products[1]; s.Late != 1 || s.Missed != 1 {
			t.Errorf("late %d, missed %d", s.Late, s.Missed)
		}
		if !errors.Is(b.Answer(1, q.ID, true, false), ErrNotAsked) {
			t.Error("a second late answer is no fault")
		}
	})
}

func TestMissDeniesWhereGranted(t *testing.T) {
	v := live(0)
	v.MissDenies = 1
	run(t, v, nil, func(t *testing.T, b *bench) {
		q := b.k.question(1)
		b.Ask(q)
		time.Sleep(time.Second)
		b.want(t, q, event.Decision{Reason: event.ByDefault})
		b.p.full = 1
		q = b.k.question(2)
		b.Ask(q)
		b.want(t, q, event.Decision{Reason: event.ByDefault})
	})
}

func TestFirstDenyDecidesAndWithdraws(t *testing.T) {
	v := live(0, 1)
	v.Shadow, v.Names[5] = event.ProductBit(5), "shadow"
	run(t, v, nil, func(t *testing.T, b *bench) {
		b.Joined(5, "shadow")
		q := b.k.question(1)
		b.Ask(q)
		b.must(t, 0, q, true, false)
		b.want(t, q, event.Decision{Reason: event.ByProducts})
		if b.p.withdrawn[q.ID] != event.ProductBit(1) {
			t.Errorf("withdrawn from %b", b.p.withdrawn[q.ID])
		}
		if len(b.events()) != 0 {
			t.Error("the record did not wait for the shadow")
		}
		time.Sleep(10 * time.Millisecond)
		b.must(t, 5, q, true, false)
		got := b.events()
		if len(got) != 1 {
			t.Fatalf("%d outcomes", len(got))
		}
		want := []event.Answer{
			{Product: "a", Outcome: event.Answered},
			{Product: "b", Outcome: event.Unneeded, Allow: true},
			{Product: "shadow", Shadow: true, Outcome: event.Answered, Latency: 10e6},
		}
		if d := cmp.Diff(want, got[0].Verdict.Answers); d != "" {
			t.Error(d)
		}
	})
}

func TestFaultsOfProducts(t *testing.T) {
	run(t, live(0, 1), nil, func(t *testing.T, b *bench) {
		q := b.k.question(1)
		b.Ask(q)
		b.must(t, 0, q, false, false)
		for name, c := range map[string]struct {
			product int
			id      uint64
			want    error
		}{
			"second":       {0, q.ID, ErrSecondAnswer},
			"not_asked":    {7, q.ID, ErrNotAsked},
			"never_issued": {1, q.ID + 1<<40, ErrNotAsked},
			"no_slot":      {1, ^uint64(0), ErrNotAsked},
			"zero":         {1, 0, ErrNotAsked},
			"no_product":   {64, q.ID, ErrNotAsked},
		} {
			if err := b.Answer(c.product, c.id, true, true); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		b.unanswered(t, q)
		b.must(t, 1, q, false, false)
	})
}

func TestExtend(t *testing.T) {
	run(t, live(0, 1), nil, func(t *testing.T, b *bench) {
		q := b.k.question(1)
		b.Ask(q)
		b.must(t, 1, q, false, false)
		if err := b.Extend(0, q.ID, boot()+uint64(3*time.Second)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2900 * time.Millisecond)
		b.unanswered(t, q)
		b.must(t, 0, q, true, false)
		b.want(t, q, event.Decision{Reason: event.ByProducts})

		q = b.k.question(2)
		b.Ask(q)
		b.must(t, 1, q, false, false)
		_ = b.Extend(0, q.ID, ^uint64(0))
		time.Sleep(DefaultExtendCap - time.Millisecond)
		b.unanswered(t, q)
		time.Sleep(2 * time.Millisecond)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByDefault})
		if !errors.Is(b.Extend(0, q.ID+1<<40, 1), ErrNotAsked) {
			t.Error("extending a question that was never asked is no fault")
		}
	})
}

func TestCriticalFiles(t *testing.T) {
	v := live(0, 1)
	v.MayDenyCritical = event.ProductBit(1)
	critical := func(c *Config) { c.Critical = func(f *event.File) bool { return f.Ino < 10 } }
	run(t, v, critical, func(t *testing.T, b *bench) {
		q := b.k.question(1)
		b.Ask(q)
		b.must(t, 0, q, true, true)
		b.must(t, 1, q, false, true)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByProducts})
		if o := b.events()[0].Verdict.Answers[0]; o.Outcome != event.Overridden || !o.Allow {
			t.Errorf("recorded as %+v", o)
		}
		if !b.p.asked()[0].critical {
			t.Error("the product was not told that the file is critical")
		}
		q = b.k.question(1)
		b.Ask(q)
		b.must(t, 1, q, true, false)
		b.want(t, q, event.Decision{Reason: event.ByProducts})

		q = b.k.question(2)
		b.Ask(q)
		_ = b.Extend(0, q.ID, boot()+uint64(time.Second))
		time.Sleep(81 * time.Millisecond)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByDefault})
	})
}

func TestNeverAskAndNobody(t *testing.T) {
	run(t, live(0), nil, func(t *testing.T, b *bench) {
		answeredFirst := false
		q := b.k.question(1)
		q.NeverAsk = true
		b.p.onSend = func(s sent) {
			answeredFirst = q.Answered()
			if s.shadow != s.to {
				t.Errorf("sent to %b, as shadow to %b", s.to, s.shadow)
			}
		}
		b.Ask(q)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByNeverAsk})
		if !answeredFirst {
			t.Error("products were asked before the kernel was answered")
		}
		b.must(t, 0, q, true, false)
		if ev := b.events(); len(ev) != 1 || ev[0].Verdict.Answers[0].Allow {
			t.Errorf("outcomes %+v", ev)
		}
		b.p.onSend = nil
		b.p.voters.Store(nil)
		q = b.k.question(2)
		b.Ask(q)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByNobody})
		v := new(event.Voters)
		v.Shadow, v.Names[0] = 1, "a"
		b.p.voters.Store(v)
		q = b.k.question(3)
		b.Ask(q)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByNobody})
		time.Sleep(time.Second)
		if s := b.Stats().Products[0]; s.Missed != 1 || s.Shadow != 2 {
			t.Errorf("%+v", s)
		}
	})
}

func TestGoneAndUnsent(t *testing.T) {
	run(t, live(0, 1), nil, func(t *testing.T, b *bench) {
		q := b.k.question(1)
		b.Ask(q)
		b.must(t, 0, q, false, true)
		b.Gone(1)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByDefault})
		b.p.full, b.p.gone = 1, 2
		q = b.k.question(1)
		b.Ask(q)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByDefault})
		var outcomes []event.AnswerOutcome
		for _, e := range b.events() {
			for _, a := range e.Verdict.Answers {
				outcomes = append(outcomes, a.Outcome)
			}
		}
		if d := cmp.Diff([]event.AnswerOutcome{event.Answered, event.Gone, event.Unsent, event.Gone}, outcomes); d != "" {
			t.Error(d)
		}
	})
}

func TestOverload(t *testing.T) {
	small := func(c *Config) { c.MaxInFlight = 4 }
	run(t, live(0), small, func(t *testing.T, b *bench) {
		for i := range uint64(4) {
			b.Ask(b.k.question(i + 1))
		}
		q := b.k.question(9)
		b.Ask(q)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByOverload})
		v := live(0)
		v.MissDenies = 1
		b.p.voters.Store(v)
		q = b.k.question(9)
		b.Ask(q)
		b.want(t, q, event.Decision{Reason: event.ByOverload})
		time.Sleep(time.Second)
	})
}

func TestASlowShadowNeverCostsALiveProductAQuestion(t *testing.T) {
	small := func(c *Config) { c.MaxInFlight = 4 }
	v := live(0)
	v.Shadow, v.Names[1] = 2, "shadow"
	run(t, v, small, func(t *testing.T, b *bench) {
		b.Joined(1, "shadow")
		for i := range uint64(100) {
			q := b.k.question(i + 1)
			b.Ask(q)
			b.must(t, 0, q, true, false)
			b.want(t, q, event.Decision{Reason: event.ByProducts})
		}
		if s := b.Stats(); s.Cut != 96 {
			t.Errorf("%d records cut short, want 96", s.Cut)
		}
		time.Sleep(time.Second)
		if n := len(b.events()); n != 100 {
			t.Errorf("%d outcomes", n)
		}
	})
}

func TestShutdownAnswersEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, live(0), nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		qs := []*event.Question{b.k.question(1), b.k.question(1), b.k.question(2)}
		for _, q := range qs {
			b.Ask(q)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		after := b.k.question(3)
		b.Ask(after)
		for _, q := range append(qs, after) {
			b.want(t, q, event.Decision{Allow: true, Reason: event.ByShutdown})
		}
		b.balance(t)
	})
}

// A later engine's ids are above all that an earlier one used, and it says which ids are not its own.
func TestGenerationsShareNoID(t *testing.T) {
	var last uint64
	for _, generation := range []uint64{0, 1000, 1 << 40} {
		run(t, live(0), func(c *Config) { c.Generation, c.MaxInFlight = generation, 3 }, func(t *testing.T, b *bench) {
			if last != 0 && !b.Earlier(last) {
				t.Errorf("id %d is not known as an earlier engine's", last)
			}
			for i := range uint64(20) {
				q := b.k.question(i + 1)
				b.Ask(q)
				if q.ID <= last || b.Earlier(q.ID) {
					t.Fatalf("question has the id %d, the last one had %d", q.ID, last)
				}
				if err := b.Answer(0, last, false, false); last != 0 && i == 0 && !errors.Is(err, ErrNotAsked) {
					t.Errorf("answer to the earlier engine's question: %v", err)
				}
				b.must(t, 0, q, false, false)
				b.want(t, q, event.Decision{Allow: true, Reason: event.ByProducts})
				last = max(last, q.ID)
			}
		})
	}
}
