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

// C6-06: a product that is quick but for every thousandth question, which it never answers.
func TestEveryThousandthMiss(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		every uint64
		pause time.Duration // between questions
		want  bool
	}{
		"on_a_busy_machine":          {1000, time.Millisecond, true},
		"on_a_quiet_machine":         {1000, 20 * time.Millisecond, false}, // a miss in 20 s
		"rarer_on_a_busy_machine":    {2000, time.Millisecond, false},
		"more_often_on_a_quiet_one":  {100, 50 * time.Millisecond, true},
		"seldom_but_many_a_minute":   {1200, 100 * time.Microsecond, false},
		"just_often_enough_in_all":   {1000, 100 * time.Microsecond, true},
		"ten_percent_at_a_slow_pace": {10, time.Second, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, live(0), nil, func(t *testing.T, b *bench) {
				for i := uint64(1); i <= 12*test.every && !b.Degraded(0); i++ {
					q := b.k.question(i)
					start := time.Now()
					b.Ask(q)
					if i%test.every == 0 {
						time.Sleep(401 * time.Millisecond)
						b.want(t, q, event.Decision{Allow: true, Reason: event.ByDefault})
						if took := b.k.at[q].Sub(start); took > 401*time.Millisecond {
							t.Fatalf("a miss took %v", took)
						}
						continue
					}
					b.must(t, 0, q, false, false)
					time.Sleep(test.pause)
				}
				if b.Degraded(0) != test.want {
					t.Errorf("degraded: %v after %d misses", b.Degraded(0), b.Stats().Products[0].Missed)
				}
			})
		})
	}
}

// A product that accepts everything and never answers costs three programs their time, and then nobody; it stays degraded
// while it is asked, however long, and is back when it answers.
func TestNeverAnsweringCostsThreePrograms(t *testing.T) {
	run(t, live(0), nil, func(t *testing.T, b *bench) {
		slow := 0
		for i := range uint64(600) {
			q := b.k.question(i + 1)
			start := time.Now()
			b.Ask(q)
			time.Sleep(time.Second)
			b.want(t, q, event.Decision{Allow: true, Reason: event.ByDefault})
			if b.k.at[q].Sub(start) > time.Millisecond {
				slow++
			}
		}
		if slow != 3 || !b.Degraded(0) {
			t.Errorf("%d programs waited, degraded: %v", slow, b.Degraded(0))
		}
		for i := range uint64(40) {
			q := b.k.question(1000 + i)
			b.Ask(q)
			b.must(t, 0, q, false, false)
			time.Sleep(time.Second)
		}
		if b.Degraded(0) {
			t.Error("it answers and is still degraded")
		}
		q := b.k.question(5000)
		b.Ask(q)
		b.unanswered(t, q) // waited for again
		b.must(t, 0, q, true, false)
		b.want(t, q, event.Decision{Reason: event.ByProducts})
	})
}

// A stopped product's socket fills up: misses at once, which cost nobody any time.
func TestFullSocketDegradesAndReturns(t *testing.T) {
	run(t, live(0), nil, func(t *testing.T, b *bench) {
		b.p.full = 1
		for i := range uint64(50) {
			q := b.k.question(i + 1)
			b.Ask(q)
			b.want(t, q, event.Decision{Allow: true, Reason: event.ByDefault})
			time.Sleep(time.Second)
		}
		if !b.Degraded(0) {
			t.Error("not degraded by a full socket")
		}
		b.p.full = 0
		for i := range uint64(31) {
			q := b.k.question(100 + i)
			b.Ask(q)
			b.must(t, 0, q, false, false)
			time.Sleep(time.Second)
		}
		if b.Degraded(0) {
			t.Error("its socket has room, it answers, and it is still degraded")
		}
	})
}
