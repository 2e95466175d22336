package verdict

import (
	"testing"
	"time"

	"bailey/agent/event"
	"github.com/google/go-cmp/cmp"
)

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
		q := b.k.question(10000)
		b.Ask(q)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByDefault})
		b.must(t, 0, q, true, false)
		b.Gone(0)
		b.Joined(0, "a")
		if b.Degraded(0) {
			t.Error("a new instance inherited the old one's record")
		}
	})
}
