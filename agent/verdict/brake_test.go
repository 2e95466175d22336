package verdict

import (
	"slices"
	"testing"
	"time"

	"bailey/agent/event"

	"github.com/google/go-cmp/cmp"
)

// denials collects what OnDeny hears.
func denials(into *[]event.Denial) func(*Config) {
	return func(c *Config) { c.OnDeny = func(d event.Denial) { *into = append(*into, d) } }
}

func TestDeniesAreToldByTheirFate(t *testing.T) {
	v := live(0, 1, 2, 3)
	v.MayDeny &^= event.ProductBit(1) | event.ProductBit(3)
	v.Braked = event.ProductBit(1)
	v.MayDenyCritical = event.ProductBit(2)
	var told []event.Denial
	edit := func(c *Config) {
		denials(&told)(c)
		c.Critical = func(f *event.File) bool { return f.Ino >= 100 }
	}
	run(t, v, edit, func(t *testing.T, b *bench) {
		ask := func(ino uint64) *event.Question {
			q := b.k.question(ino)
			b.Ask(q)
			return q
		}
		q := ask(1)
		b.must(t, 1, q, true, true) // braked
		b.must(t, 3, q, true, true) // never had the right
		b.unanswered(t, q)
		b.must(t, 2, q, false, true)
		b.must(t, 0, q, false, true)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByProducts}) // and not to be cached
		q = ask(2)
		b.must(t, 0, q, true, false)
		b.want(t, q, event.Decision{Reason: event.ByProducts})
		q = ask(100)
		b.must(t, 0, q, true, false) // critical
		b.must(t, 1, q, true, false)
		b.must(t, 3, q, false, false)
		b.unanswered(t, q)
		b.must(t, 2, q, true, false) // may deny even this
		b.want(t, q, event.Decision{Reason: event.ByProducts})

		want := []string{"b braked 1", "a stood 2", "a critical 100", "b braked 100", "c stood 100"}
		var got []string
		for _, d := range told {
			fate := map[event.Fate]string{event.DenyStood: "stood", event.DenyBraked: "braked", event.DenyCritical: "critical"}[d.Fate]
			got = append(got, d.Product+" "+fate+" "+itoa(d.File.Ino))
			if d.Process == nil || d.QuestionID == 0 || d.Time == 0 || d.Asked != event.Exec {
				t.Errorf("incomplete: %+v", d)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		s := b.Stats().Products
		if s[0].Critical != 1 || s[0].Overridden != 1 || s[1].Braked != 2 || s[1].Overridden != 2 || s[2].Overridden != 0 || s[3].Overridden != 1 || s[3].Braked+s[3].Critical != 0 {
			t.Errorf("%+v", s)
		}
		outcomes := map[string]event.AnswerOutcome{}
		for _, a := range b.events()[0].Verdict.Answers {
			outcomes[a.Product] = a.Outcome
			if !a.Allow {
				t.Errorf("%s counted as a deny", a.Product)
			}
		}
		if d := cmp.Diff(map[string]event.AnswerOutcome{"a": event.Answered, "b": event.Overridden, "c": event.Answered, "d": event.Overridden}, outcomes); d != "" {
			t.Error(d)
		}
	})
}

// TestAdmitTakesTheWeightFromADeny: what is too much is overridden at once, and the question goes on.
func TestAdmitTakesTheWeightFromADeny(t *testing.T) {
	admitted := 0
	var told []event.Denial
	edit := func(c *Config) {
		denials(&told)(c)
		c.Admit = func(d *event.Denial) bool {
			admitted++
			return d.File.Ino <= 3
		}
	}
	run(t, live(0, 1), edit, func(t *testing.T, b *bench) {
		for i := range uint64(5) {
			q := b.k.question(i + 1)
			b.Ask(q)
			b.must(t, 0, q, true, true)
			if i < 3 {
				b.want(t, q, event.Decision{Reason: event.ByProducts})
				continue
			}
			b.unanswered(t, q)
			b.must(t, 1, q, false, true)
			b.want(t, q, event.Decision{Allow: true, Reason: event.ByProducts})
		}
		if s := b.Stats().Products[0]; s.Braked != 2 || s.Overridden != 2 || s.Denied != 5 || admitted != 5 || len(told) != 5 {
			t.Errorf("%d asked about, %d told: %+v", admitted, len(told), s)
		}
		q := b.k.question(4) // nothing of it was remembered
		b.Ask(q)
		b.must(t, 1, q, false, true)
		b.must(t, 0, q, false, true)
		b.want(t, q, event.Decision{Allow: true, Reason: event.ByProducts, CacheFile: true})
	})
}

func itoa(n uint64) string {
	var out []byte
	for ; n > 0 || len(out) == 0; n /= 10 {
		out = append(out, byte('0'+n%10))
	}
	slices.Reverse(out)
	return string(out)
}

// TestBrakeReachesQuestionsInFlight: what was asked before a product was braked is not denied by it after, neither by its
// word nor by its silence.
func TestBrakeReachesQuestionsInFlight(t *testing.T) {
	v := live(0, 1)
	v.MissDenies = event.ProductBit(0)
	var told []event.Denial
	run(t, v, denials(&told), func(t *testing.T, b *bench) {
		var qs []*event.Question
		for i := range uint64(40) {
			q := b.k.question(i + 1)
			b.Ask(q)
			qs = append(qs, q)
		}
		waits := b.k.question(1) // equal to the first
		b.Ask(waits)
		b.Brake(0)
		for i, q := range qs {
			if i%2 == 0 {
				b.must(t, 0, q, true, true)
			}
			b.must(t, 1, q, false, true)
		}
		time.Sleep(time.Second)
		for _, q := range append(qs, waits) {
			if d, ok := b.k.verdict(q); !ok || !d.Allow {
				t.Errorf("question %d: answered %v, %+v", q.ID, ok, d)
			}
		}
		if len(told) != 20 {
			t.Errorf("%d denies told", len(told))
		}
		for _, d := range told {
			if d.Fate != event.DenyBraked {
				t.Errorf("fate %d", d.Fate)
			}
		}
		b.Brake(-1)
		b.Brake(event.MaxProducts)
	})
}

func TestDeniesFromTheCacheAreCounted(t *testing.T) {
	run(t, live(0, 1), nil, func(t *testing.T, b *bench) {
		first := b.k.question(1)
		b.Ask(first)
		shared := b.k.question(1)
		b.Ask(shared)
		b.must(t, 1, first, true, true)
		b.want(t, shared, event.Decision{Reason: event.ByShare})
		for range 5 {
			q := b.k.question(1)
			b.Ask(q)
			b.want(t, q, event.Decision{Reason: event.ByCache})
		}
		if a, c := b.Repeated("a"), b.Repeated("b"); a != 0 || c != 6 {
			t.Errorf("repeated %d and %d, want 0 and 6", a, c)
		}
		if b.Repeated("") != 0 || b.Repeated("nobody") != 0 {
			t.Error("denies of nobody")
		}
	})
}
