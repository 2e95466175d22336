package verdict

import (
	"testing"

	"bailey/agent/event"
)

func TestBallot(t *testing.T) {
	t.Parallel()
	const a, b, c = event.ProductSet(1), event.ProductSet(2), event.ProductSet(4)
	type word struct {
		p           event.ProductSet
		deny, cache bool
		silent      bool
	}
	allow := func(p event.ProductSet) word { return word{p: p} }
	file := func(p event.ProductSet) word { return word{p: p, cache: true} }
	deny := func(p event.ProductSet) word { return word{p: p, deny: true} }
	miss := func(p event.ProductSet) word { return word{p: p, silent: true} }
	tests := []struct {
		name     string
		voters   event.Voters
		critical bool
		words    []word
		undecide bool
		want     event.Decision
		withdraw event.ProductSet
		fileOnly bool
		over     event.ProductSet
	}{
		{name: "waits_for_all", voters: event.Voters{Live: a | b}, words: []word{allow(a)}, undecide: true},
		{name: "all_allow", voters: event.Voters{Live: a | b}, words: []word{allow(a), file(b)},
			want: event.Decision{Allow: true, Reason: event.ByProducts}},
		{name: "all_allow_by_file", voters: event.Voters{Live: a | b}, words: []word{file(a), file(b)},
			want: event.Decision{Allow: true, Reason: event.ByProducts, CacheFile: true}, fileOnly: true},
		{name: "first_deny_decides", voters: event.Voters{Live: a | b | c, MayDeny: a | b | c}, words: []word{allow(a), deny(b)},
			want: event.Decision{Reason: event.ByProducts}, withdraw: c},
		{name: "deny_by_file_is_shared", voters: event.Voters{Live: a, MayDeny: a}, words: []word{{p: a, deny: true, cache: true}},
			want: event.Decision{Reason: event.ByProducts}, fileOnly: true},
		{name: "deny_without_grant_is_overridden", voters: event.Voters{Live: a}, words: []word{{p: a, deny: true, cache: true}},
			want: event.Decision{Allow: true, Reason: event.ByProducts}, over: a},
		{name: "deny_of_critical_is_overridden", voters: event.Voters{Live: a | b, MayDeny: a | b}, critical: true,
			words: []word{deny(a), allow(b)}, want: event.Decision{Allow: true, Reason: event.ByProducts}, over: a},
		{name: "deny_of_critical_with_grant", voters: event.Voters{Live: a, MayDeny: a, MayDenyCritical: a}, critical: true,
			words: []word{deny(a)}, want: event.Decision{Reason: event.ByProducts}},
		{name: "silence_allows", voters: event.Voters{Live: a | b, MayDeny: a | b}, words: []word{file(a), miss(b)},
			want: event.Decision{Allow: true, Reason: event.ByDefault}},
		{name: "silence_denies", voters: event.Voters{Live: a | b, MayDeny: a | b, MissDenies: a}, words: []word{miss(a)},
			want: event.Decision{Reason: event.ByDefault}, withdraw: b},
		{name: "silence_denies_only_with_deny_grant", voters: event.Voters{Live: a, MissDenies: a}, words: []word{miss(a)},
			want: event.Decision{Allow: true, Reason: event.ByDefault}},
		{name: "silence_never_denies_critical", voters: event.Voters{Live: a, MayDeny: a, MissDenies: a}, critical: true,
			words: []word{miss(a)}, want: event.Decision{Allow: true, Reason: event.ByDefault}},
		{name: "deny_after_a_miss", voters: event.Voters{Live: a | b, MayDeny: a | b}, words: []word{miss(a), deny(b)},
			want: event.Decision{Reason: event.ByProducts}},
		{name: "shadow_never_counts", voters: event.Voters{Live: a, Shadow: b, MayDeny: a | b, MissDenies: b},
			words: []word{deny(b), file(a)}, want: event.Decision{Allow: true, Reason: event.ByProducts, CacheFile: true}, fileOnly: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := newBallot(&tt.voters, ^event.ProductSet(0), 0)
			if tt.critical {
				v.restrictCritical(&tt.voters)
			}
			var d event.Decision
			var withdrawn event.ProductSet
			var ok bool
			for _, w := range tt.words {
				if ok {
					t.Fatal("decided before the last word")
				}
				if w.silent {
					v.silence(w.p, &v.missed)
				} else {
					v.answer(w.p, w.deny, w.cache)
				}
				d, withdrawn, ok = v.decide()
			}
			if ok == tt.undecide || d != tt.want || withdrawn != tt.withdraw || v.overridden != tt.over {
				t.Errorf("got %+v, withdrawn %b, decided %v, overridden %b", d, withdrawn, ok, v.overridden)
			}
			if ok && v.fileOnly(d) != tt.fileOnly {
				t.Errorf("file only: %v", !tt.fileOnly)
			}
			if _, _, again := v.decide(); ok && again {
				t.Error("decided twice")
			}
		})
	}
}
