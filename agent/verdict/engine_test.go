package verdict

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
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

func TestCacheAndItsInvalidations(t *testing.T) {
	run(t, live(0), nil, func(t *testing.T, b *bench) {
		ask := func(edit func(*event.Question)) (*event.Question, bool) {
			q := b.k.question(1)
			if edit != nil {
				edit(q)
			}
			before := len(b.p.asked())
			b.Ask(q)
			synctest.Wait()
			asked := len(b.p.asked()) > before
			if asked {
				b.must(t, 0, q, false, true)
			}
			return q, asked
		}
		steps := []struct {
			name  string
			do    func()
			edit  func(*event.Question)
			asked bool
		}{
			{name: "first", asked: true},
			{name: "cached"},
			{name: "other_kind", edit: func(q *event.Question) { q.Kind = event.Open }, asked: true},
			{name: "other_inode", edit: func(q *event.Question) { q.File.Ino = 2 }, asked: true},
			{name: "other_ctime", edit: func(q *event.Question) { q.File.CTime++ }, asked: true},
			{name: "other_size", edit: func(q *event.Question) { q.File.Size++ }, asked: true},
			{name: "written", do: func() { b.Forget(1, 1) }, asked: true},
			{name: "cached_again"},
			{name: "rules_changed", do: func() { _ = b.Invalidate("rules") }, asked: true},
			{name: "cached_once_more"},
			{name: "product_added", do: func() { b.p.voters.Store(live(0, 1)) }, asked: true},
			{name: "too_young", do: func() { b.p.voters.Store(live(0)) }, edit: func(q *event.Question) { q.File.CTime = time.Now().UnixNano() - 1e6 }, asked: true},
			{name: "still_too_young", edit: func(q *event.Question) { q.File.CTime = time.Now().UnixNano() - 1e6 }, asked: true},
			{name: "unknown_file", edit: func(q *event.Question) { q.File.Ino = 0 }, asked: true},
		}
		for _, s := range steps {
			if s.do != nil {
				s.do()
			}
			q, asked := ask(s.edit)
			if asked != s.asked {
				t.Errorf("%s: asked %v", s.name, asked)
			}
			if !asked {
				b.want(t, q, event.Decision{Allow: true, Reason: event.ByCache, CacheFile: true})
			}
			if s.name == "product_added" {
				b.must(t, 1, q, false, true)
			}
		}
	})
}

func TestDenyIsCachedButNeverMarked(t *testing.T) {
	run(t, live(0, 1), nil, func(t *testing.T, b *bench) {
		q := b.k.question(1)
		b.Ask(q)
		b.must(t, 1, q, true, true)
		b.want(t, q, event.Decision{Reason: event.ByProducts})
		q = b.k.question(1)
		b.Ask(q)
		b.want(t, q, event.Decision{Reason: event.ByCache})
		if ev := b.events(); len(ev) != 2 {
			t.Errorf("%d outcomes, want one for the product's deny and one for the cached", len(ev))
		}
		// The denier lost its grant: its word must not be used.
		v := live(0, 1)
		v.MayDeny = 1
		b.p.voters.Store(v)
		q = b.k.question(1)
		b.Ask(q)
		b.unanswered(t, q)
		b.must(t, 0, q, false, false)
		b.must(t, 1, q, true, false)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByProducts})
	})
}

func TestScopesAndTheKernelsMark(t *testing.T) {
	run(t, live(0, 1), nil, func(t *testing.T, b *bench) {
		only := event.ProductBit(0)
		b.p.within = func(*event.Question) event.ProductSet { return only }
		q := b.k.question(1)
		b.Ask(q)
		b.must(t, 0, q, false, true)
		// Product 1 would be asked about the same file under another name: the kernel must go on asking.
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByProducts})
		q = b.k.question(1)
		b.Ask(q)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByCache})
		only = 3
		q = b.k.question(1)
		b.Ask(q)
		b.must(t, 0, q, false, true)
		b.must(t, 1, q, false, true)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByProducts, CacheFile: true})
	})
}

func TestAnswersFromBeforeAnInvalidationAreNotKept(t *testing.T) {
	run(t, live(0), nil, func(t *testing.T, b *bench) {
		for name, change := range map[string]func(){
			"invalidated": func() { _ = b.Invalidate("rules") },
			"written":     func() { b.Forget(1, 1) },
		} {
			q := b.k.question(1)
			b.Ask(q)
			change()
			b.must(t, 0, q, false, true)
			b.want(t, q, event.Decision{Allow: true, Reason: event.ByProducts})
			q = b.k.question(1)
			b.Ask(q)
			b.unanswered(t, q)
			b.must(t, 0, q, false, false)
			if t.Failed() {
				t.Fatal(name)
			}
		}
	})
}

// An answer that is on its way to the kernel may still set its mark: the flush must come after it.
func TestInvalidateWaitsForAnswersUnderWay(t *testing.T) {
	run(t, live(0), nil, func(t *testing.T, b *bench) {
		arrived, goOn := make(chan struct{}), make(chan struct{})
		b.k.onAnswer = func() {
			close(arrived)
			<-goOn
		}
		q := b.k.question(1)
		b.Ask(q)
		var answered, invalidated sync.WaitGroup
		answered.Go(func() { b.must(t, 0, q, false, true) })
		<-arrived
		done := false
		invalidated.Go(func() {
			_ = b.Invalidate("rules")
			done = true
		})
		time.Sleep(50 * time.Millisecond)
		if done {
			t.Error("flushed while an answer could still set its mark")
		}
		close(goOn)
		answered.Wait()
		invalidated.Wait()
		b.k.onAnswer = nil
		if len(b.k.marks) != 0 {
			t.Error("a mark survived")
		}
	})
}

func TestQuestionsThatOnlyLookEqualDoNotWait(t *testing.T) {
	run(t, live(0, 1), nil, func(t *testing.T, b *bench) {
		within := event.ProductBit(0)
		b.p.within = func(*event.Question) event.ProductSet { return within }
		b.Ask(b.k.question(1))
		within = 3 // the same file under a name that is in another product's scope as well
		b.Ask(b.k.question(1))
		if n := len(b.p.asked()); n != 2 {
			t.Errorf("asked %d times, the second has another electorate", n)
		}
		_ = b.Invalidate("rules")
		b.Ask(b.k.question(1))
		if n := len(b.p.asked()); n != 3 {
			t.Errorf("asked %d times, the third came after an invalidation", n)
		}
		time.Sleep(time.Second)
	})
}

func TestAQuestionThatWasLateItselfIsHeldAgainstNobody(t *testing.T) {
	run(t, live(0), nil, func(t *testing.T, b *bench) {
		for i := range uint64(5) {
			q := b.k.question(i + 1)
			q.Time = boot() - uint64(380*time.Millisecond)
			b.Ask(q)
			time.Sleep(21 * time.Millisecond)
			b.want(t, q, event.Decision{Allow: true, Reason: event.ByDefault})
		}
		if b.Degraded(0) {
			t.Error("degraded by questions that left it 20 ms of 400")
		}
	})
}

func TestFailedFlushIsReportedAndTriedAgain(t *testing.T) {
	reg := health.NewRegistry()
	var failure error
	flush := func(c *Config) { c.Health, c.FlushKernel = reg, func() error { return failure } }
	run(t, live(0), flush, func(t *testing.T, b *bench) {
		failure = errors.New("no such group")
		if err := b.Invalidate("rules"); !errors.Is(err, failure) {
			t.Errorf("error %v", err)
		}
		if reg.Worst() != health.Failed {
			t.Error("health does not say so")
		}
		failure = nil
		if err := b.Invalidate("rules"); err != nil || reg.Worst() != health.OK {
			t.Errorf("error %v, health %v", err, reg.Worst())
		}
	})
}

func TestEqualQuestionsShareOneAsk(t *testing.T) {
	run(t, live(0), nil, func(t *testing.T, b *bench) {
		var qs []*event.Question
		for range 10 {
			qs = append(qs, b.k.question(1))
			b.Ask(qs[len(qs)-1])
		}
		if n := len(b.p.asked()); n != 1 {
			t.Fatalf("%d asks for equal questions", n)
		}
		b.must(t, 0, qs[0], false, true)
		b.want(t, qs[0], event.Decision{Allow: true, Reason: event.ByProducts, CacheFile: true})
		for _, q := range qs[1:] {
			b.want(t, q, event.Decision{Allow: true, Reason: event.ByShare})
		}
	})
}

func TestAnswersThatDependOnTheAskerAreNotShared(t *testing.T) {
	run(t, live(0), nil, func(t *testing.T, b *bench) {
		first, second, slow := b.k.question(1), b.k.question(1), b.k.question(2)
		b.Ask(first)
		b.Ask(second)
		b.must(t, 0, first, false, false)
		b.unanswered(t, second)
		if n := len(b.p.asked()); n != 2 {
			t.Fatalf("asked %d times", n)
		}
		b.must(t, 0, second, true, false)
		b.want(t, second, event.Decision{Reason: event.ByProducts})
		// From now on nobody waits in vain.
		b.Ask(b.k.question(2))
		b.Ask(slow)
		if n := len(b.p.asked()); n != 4 {
			t.Fatalf("asked %d times", n)
		}
		time.Sleep(time.Second)
	})
}

func TestWaitingEndsAfterAQuarterOfTheBudget(t *testing.T) {
	run(t, live(0), nil, func(t *testing.T, b *bench) {
		lead, waiter := b.k.question(1), b.k.question(1)
		b.Ask(lead)
		b.Ask(waiter)
		time.Sleep(124 * time.Millisecond)
		if n := len(b.p.asked()); n != 1 {
			t.Fatalf("asked %d times too early", n)
		}
		time.Sleep(2 * time.Millisecond)
		if n := len(b.p.asked()); n != 2 {
			t.Fatalf("asked %d times", n)
		}
		time.Sleep(275 * time.Millisecond)
		b.want(t, lead, event.Decision{Allow: true, Reason: event.ByDefault})
		b.want(t, waiter, event.Decision{Allow: true, Reason: event.ByDefault})
	})
}

func TestWaitersFollowAnExtendedQuestion(t *testing.T) {
	run(t, live(0), nil, func(t *testing.T, b *bench) {
		lead, waiter := b.k.question(1), b.k.question(1)
		b.Ask(lead)
		b.Ask(waiter)
		_ = b.Extend(0, lead.ID, boot()+uint64(2*time.Second))
		time.Sleep(1900 * time.Millisecond)
		b.must(t, 0, lead, true, true)
		b.want(t, waiter, event.Decision{Reason: event.ByShare})
		if n := len(b.p.asked()); n != 1 {
			t.Errorf("asked %d times", n)
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

func TestDegradedAndBack(t *testing.T) {
	var heard []change
	listen := func(c *Config) {
		c.OnAuthority = func(p int, degraded bool, reason string) { heard = append(heard, change{p, degraded, reason}) }
	}
	run(t, live(0, 1), listen, func(t *testing.T, b *bench) {
		ask := func(ino uint64) *event.Question {
			q := b.k.question(ino)
			b.Ask(q)
			b.must(t, 1, q, false, false)
			return q
		}
		for i := range uint64(3) {
			b.unanswered(t, ask(i+1))
			time.Sleep(401 * time.Millisecond)
		}
		b.want(t, ask(4), event.Decision{Allow: true, Reason: event.ByProducts})
		last := b.p.asked()
		if s := last[len(last)-1]; s.shadow != 1 || s.to != 3 {
			t.Errorf("degraded product was asked as %+v", s)
		}
		time.Sleep(29 * time.Second)
		b.want(t, ask(5), event.Decision{Allow: true, Reason: event.ByProducts}) // missed: the probation starts anew
		time.Sleep(29 * time.Second)
		if !b.Degraded(0) {
			t.Error("returned in spite of a miss in its probation")
		}
		time.Sleep(2 * time.Second)
		b.unanswered(t, ask(6))
		time.Sleep(time.Second)
		want := []change{{0, true, "missed 3 questions in a row"}, {0, false, "no miss in 30s"}}
		if d := cmp.Diff(want, heard, cmp.AllowUnexported(change{})); d != "" {
			t.Error(d)
		}
		if b.CacheStats().Invalidations["product_returned"] != 1 {
			t.Error("nothing was invalidated when the product returned")
		}
	})
}

func TestDegradedByTenPercent(t *testing.T) {
	run(t, live(0), nil, func(t *testing.T, b *bench) {
		for i := range uint64(9) {
			for j := range uint64(9) {
				q := b.k.question(100*i + j + 1)
				b.Ask(q)
				b.must(t, 0, q, false, false)
			}
			b.Ask(b.k.question(100*i + 99))
			time.Sleep(time.Second)
		}
		if b.Degraded(0) {
			t.Fatal("degraded by 9 misses of 90")
		}
		b.Ask(b.k.question(9999))
		time.Sleep(time.Second)
		if !b.Degraded(0) {
			t.Error("not degraded by 10 misses of 91")
		}
		b.Gone(0)
		b.Joined(0, "a")
		if b.Degraded(0) {
			t.Error("a new instance inherited the old one's record")
		}
	})
}
