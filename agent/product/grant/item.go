package grant

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"bailey/agent/event"
	"bailey/agent/product/manifest"
)

// The tables say which items there are; everything else in this package walks them.
var flags = []struct {
	word string
	of   func(*Grant) *bool
}{
	{"deny", func(g *Grant) *bool { return &g.Deny }},
	{"deny_critical", func(g *Grant) *bool { return &g.DenyCritical }},
	{"on_miss:deny", func(g *Grant) *bool { return &g.OnMissDeny }},
	{"live", func(g *Grant) *bool { return &g.Live }},
}

var lists = []struct {
	word  string
	of    func(*Grant) *[]string
	check func(string) error
}{
	{"daemon", func(g *Grant) *[]string { return &g.Daemons }, manifest.CheckPath},
	{"scope", func(g *Grant) *[]string { return &g.OpenScope }, manifest.CheckPath},
	{"read", func(g *Grant) *[]string { return &g.Read }, checkBoth},
	{"connect", func(g *Grant) *[]string { return &g.Connect }, checkBoth},
	{"rule", func(g *Grant) *[]string { return &g.Rules }, checkRule},
}

var limits = []limit{
	sizeLimit("memory", func(l *manifest.Limits) *manifest.Size { return &l.Memory }),
	countLimit("pids", func(l *manifest.Limits) *int { return &l.Pids }),
	{
		word: "cpu",
		set: func(l *manifest.Limits, s string) error {
			f, err := strconv.ParseFloat(s, 64)
			if err != nil || math.IsNaN(f) || f < 0.01 || f > 4096 {
				return fmt.Errorf("cpu %q: want a number of cores, like 0.5", s)
			}
			l.CPU = f
			return nil
		},
		get: func(l *manifest.Limits) string {
			if l.CPU == 0 {
				return ""
			}
			return strconv.FormatFloat(l.CPU, 'g', -1, 64)
		},
		number: func(l *manifest.Limits) float64 { return l.CPU },
	},
	countLimit("files", func(l *manifest.Limits) *int { return &l.Files }),
	sizeLimit("state", func(l *manifest.Limits) *manifest.Size { return &l.State }),
	sizeLimit("log", func(l *manifest.Limits) *manifest.Size { return &l.Log }),
}

var rates = []struct {
	word string
	of   func(*Rates) *int
}{
	{"deny_files", func(r *Rates) *int { return &r.Files }},
	{"deny_package_files", func(r *Rates) *int { return &r.PackageFiles }},
}

// maxRate bounds what is remembered of a product's denies.
const maxRate = 10_000

func checkRule(action string) error {
	if !slices.Contains(manifest.RuleActions, action) {
		return fmt.Errorf("no rule can refuse %q; known: %s", action, strings.Join(manifest.RuleActions, ", "))
	}
	return nil
}

func checkBoth(p string) error {
	if err := manifest.CheckPath(p); err != nil {
		return err
	}
	return manifest.CheckHostPath(p)
}

// Add grants one item. Granting what is granted already changes nothing.
func (g *Grant) Add(item string) error { return g.change(item, true) }

// Remove revokes one item. Revoking what is not granted, or a limit, is an error: an unlimited product does not exist.
func (g *Grant) Remove(item string) error { return g.change(item, false) }

func (g *Grant) change(item string, add bool) error {
	for _, f := range flags {
		if f.word == item {
			return setFlag(f.of(g), item, add)
		}
	}
	word, value, _ := strings.Cut(item, ":")
	switch word {
	case "see":
		return setKind(&g.See, value, add, event.Kinds())
	case "decide":
		return setKind(&g.Decide, value, add, []event.Kind{event.Exec, event.Open})
	}
	for _, l := range lists {
		if l.word == word {
			return setPath(l.of(g), l.check, item, value, add)
		}
	}
	for _, r := range rates {
		if r.word == word {
			return setRate(r.of(&g.Rates), item, value, add)
		}
	}
	for _, n := range limits {
		if n.word != word {
			continue
		}
		if !add {
			return fmt.Errorf("grant %q is a limit: it can be changed and not be revoked", item)
		}
		if err := n.set(&g.Limits, value); err != nil {
			return fmt.Errorf("grant %q: %w", item, err)
		}
		if n.number(&g.Limits) == 0 {
			return fmt.Errorf("grant %q: a limit of nothing", item)
		}
		return nil
	}
	return fmt.Errorf("unknown grant %q; known: %s", item, strings.Join(Words(), ", "))
}

// Words lists the forms an item can have.
func Words() []string {
	out := []string{"see:EVENT", "decide:exec", "decide:open"}
	for _, f := range flags {
		out = append(out, f.word)
	}
	for _, l := range lists {
		what := ":PATH"
		if l.word == "rule" {
			what = ":ACTION"
		}
		out = append(out, l.word+what)
	}
	for _, n := range limits {
		out = append(out, n.word+":N")
	}
	for _, r := range rates {
		out = append(out, r.word+":N")
	}
	return out
}

// setRate sets a rate. Revoked, it is the configuration's again.
func setRate(rate *int, item, value string, add bool) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > maxRate {
		return fmt.Errorf("grant %q: want a number of files from 1 to %d", item, maxRate)
	}
	switch {
	case add:
		*rate = n
	case *rate != n:
		return notHeld(item)
	default:
		*rate = 0
	}
	return nil
}

func setFlag(f *bool, item string, add bool) error {
	if !add && !*f {
		return notHeld(item)
	}
	*f = add
	return nil
}

func setKind(s *event.KindSet, word string, add bool, allowed []event.Kind) error {
	k, err := event.ParseKind(word)
	if err != nil {
		return err
	}
	if !slices.Contains(allowed, k) {
		return fmt.Errorf("%q cannot be decided; only exec and open are asked", word)
	}
	if !add && !s.Has(k) {
		return notHeld(word)
	}
	if add {
		*s |= event.KindsOf(k)
		return nil
	}
	*s &^= event.KindsOf(k)
	return nil
}

func setPath(list *[]string, check func(string) error, item, path string, add bool) error {
	i, held := slices.BinarySearch(*list, path)
	switch {
	case !add && !held:
		return notHeld(item)
	case !add:
		*list = slices.Delete(slices.Clone(*list), i, i+1)
	case !held:
		if err := check(path); err != nil {
			return fmt.Errorf("grant %q: %w", item, err)
		}
		*list = slices.Insert(slices.Clone(*list), i, path)
	}
	return nil
}

func notHeld(item string) error { return fmt.Errorf("%q is not granted", item) }

func marshalItems(items []string) ([]byte, error) {
	if items == nil {
		items = []string{}
	}
	return json.Marshal(items)
}

func unmarshalItems(b []byte) (items []string, err error) {
	err = json.Unmarshal(b, &items)
	return items, err
}
