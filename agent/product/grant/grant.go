// Package grant is what the operator lets a product see, decide, do and consume. A Grant is kept and shown as a list of
// items ("see:exec", "deny", "read:/var/lib/dpkg", "memory:128MiB"), each of which can be granted and revoked alone. The
// package enforces nothing: hub, verdict and containment do.
//
// Invariant: Parse(g.Items()) equals g, so that what is stored, shown and enforced is the same.
package grant

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"bailey/agent/event"
	"bailey/agent/product/manifest"
)

// Grant is what one product may. The zero value may nothing.
type Grant struct {
	See          event.KindSet
	Decide       event.KindSet
	Deny         bool
	DenyCritical bool
	OnMissDeny   bool
	Live         bool // clear: its answers are recorded and never count
	Daemons      []string
	OpenScope    []string
	Read         []string
	Connect      []string
	Rules        []string // actions that its rules in the kernel may refuse
	Limits       manifest.Limits
	Rates        Rates
}

// Rates is how many different files a product may deny within the brake's window; 0 is what the agent's configuration says. A
// manifest cannot ask for it.
type Rates struct {
	Files        int // in all
	PackageFiles int // of those that packages own
}

// Wanted is the grant that m requests.
func Wanted(m *manifest.Manifest) Grant {
	return Grant{
		See:          event.KindsOf(m.Request.See...),
		Decide:       event.KindsOf(m.Request.Decide...),
		Deny:         m.Request.Deny,
		DenyCritical: m.Request.DenyCritical,
		OnMissDeny:   m.Request.OnMiss == "deny",
		Live:         m.Request.Authority == "live",
		Daemons:      sorted(m.Request.Daemons),
		OpenScope:    sorted(m.Request.OpenScope),
		Read:         sorted(m.Run.Read),
		Connect:      sorted(m.Run.Connect),
		Rules:        sorted(m.Request.Rules),
		Limits:       m.Limits,
	}
}

// Parse makes the grant that items list.
func Parse(items []string) (Grant, error) {
	var g Grant
	for _, it := range items {
		if err := g.Add(it); err != nil {
			return Grant{}, err
		}
	}
	return g, nil
}

// Items lists g in a fixed order.
func (g Grant) Items() []string {
	var out []string
	for _, k := range g.See.List() {
		out = append(out, "see:"+k.String())
	}
	for _, k := range g.Decide.List() {
		out = append(out, "decide:"+k.String())
	}
	for _, f := range flags {
		if *f.of(&g) {
			out = append(out, f.word)
		}
	}
	for _, l := range lists {
		for _, p := range *l.of(&g) {
			out = append(out, l.word+":"+p)
		}
	}
	for _, n := range limits {
		if s := n.get(&g.Limits); s != "" {
			out = append(out, n.word+":"+s)
		}
	}
	for _, r := range rates {
		if n := *r.of(&g.Rates); n != 0 {
			out = append(out, r.word+":"+strconv.Itoa(n))
		}
	}
	return out
}

// MarshalJSON writes the items.
func (g Grant) MarshalJSON() ([]byte, error) { return marshalItems(g.Items()) }

// UnmarshalJSON reads what MarshalJSON writes; an item it does not know is an error.
func (g *Grant) UnmarshalJSON(b []byte) error {
	items, err := unmarshalItems(b)
	if err != nil {
		return err
	}
	*g, err = Parse(items)
	return err
}

// Missing lists the items of want that have does not cover. A limit is covered when it is at least as high.
func Missing(want, have Grant) []string {
	var out []string
	held := have.Items()
	for _, it := range want.Items() {
		if slices.Contains(held, it) || coveredLimit(it, &have.Limits) {
			continue
		}
		out = append(out, it)
	}
	return out
}

func coveredLimit(item string, have *manifest.Limits) bool {
	word, value, _ := strings.Cut(item, ":")
	for _, n := range limits {
		if n.word == word {
			var l manifest.Limits
			return n.set(&l, value) == nil && n.number(&l) <= n.number(have)
		}
	}
	return false
}

func sorted(s []string) []string {
	if len(s) == 0 {
		return nil
	}
	out := slices.Clone(s)
	slices.Sort(out)
	return slices.Compact(out)
}

type limit struct {
	word   string
	set    func(*manifest.Limits, string) error
	get    func(*manifest.Limits) string
	number func(*manifest.Limits) float64
}

func sizeLimit(word string, of func(*manifest.Limits) *manifest.Size) limit {
	return limit{
		word: word,
		set: func(l *manifest.Limits, s string) (err error) {
			*of(l), err = manifest.ParseSize(s)
			return err
		},
		get: func(l *manifest.Limits) string {
			if *of(l) == 0 {
				return ""
			}
			return of(l).String()
		},
		number: func(l *manifest.Limits) float64 { return float64(*of(l)) },
	}
}

func countLimit(word string, of func(*manifest.Limits) *int) limit {
	return limit{
		word: word,
		set: func(l *manifest.Limits, s string) (err error) {
			n, err := strconv.ParseUint(s, 10, 31)
			if err != nil {
				return fmt.Errorf("%s %q: want a whole number", word, s)
			}
			*of(l) = int(n)
			return nil
		},
		get: func(l *manifest.Limits) string {
			if *of(l) == 0 {
				return ""
			}
			return strconv.Itoa(*of(l))
		},
		number: func(l *manifest.Limits) float64 { return float64(*of(l)) },
	}
}
