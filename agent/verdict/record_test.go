package verdict

import (
	"testing"

	"bailey/agent/event"

	"github.com/google/go-cmp/cmp"
)

// TestNotable: denies, and denies that did not count, are told also while nobody wants verdicts; nothing else is.
func TestNotable(t *testing.T) {
	for _, c := range []struct {
		name   string
		voters func() *event.Voters
		deny   bool
		wanted bool
		want   []string
	}{
		{"deny", func() *event.Voters { return live(0) }, true, false, []string{"notable"}},
		{"deny_that_is_wanted", func() *event.Voters { return live(0) }, true, true, []string{"outcome", "notable"}},
		{"allow", func() *event.Voters { return live(0) }, false, false, nil},
		{"allow_that_is_wanted", func() *event.Voters { return live(0) }, false, true, []string{"outcome"}},
		{"deny_without_the_grant", func() *event.Voters { v := live(0); v.MayDeny = 0; return v }, true, false, []string{"notable"}},
		{"deny_of_a_shadow", func() *event.Voters { v := live(0); v.Shadow, v.Names[1] = event.ProductBit(1), "b"; return v }, false, false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			v := c.voters()
			notable := func(cfg *Config) {
				cfg.Wanted = func() bool { return c.wanted }
				cfg.Outcome = func(*event.Event) { got = append(got, "outcome") }
				cfg.Notable = func(e *event.Event) {
					got = append(got, "notable")
					if e.Verdict.Decision.Allow && e.Verdict.Answers[0].Outcome != event.Overridden {
						t.Errorf("told of %+v", e.Verdict)
					}
				}
			}
			run(t, v, notable, func(t *testing.T, b *bench) {
				q := b.k.question(1)
				b.Ask(q)
				b.must(t, 0, q, c.deny, false)
				if v.Shadow != 0 {
					b.must(t, 1, q, true, false)
				}
			})
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestNotableWithoutAVote: equal questions that share a deny are each told.
func TestNotableWithoutAVote(t *testing.T) {
	told := 0
	run(t, live(0), func(c *Config) {
		c.Wanted, c.Notable = func() bool { return false }, func(*event.Event) { told++ }
	}, func(t *testing.T, b *bench) {
		first, second := b.k.question(1), b.k.question(1)
		b.Ask(first)
		b.Ask(second)
		b.must(t, 0, first, true, true)
		b.want(t, second, event.Decision{Reason: event.ByShare})
	})
	if told != 2 {
		t.Errorf("%d denies were told, want 2", told)
	}
}
