package verdict

import (
	"testing"
	"time"

	"bailey/agent/event"
)

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
