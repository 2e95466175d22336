package client

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"bailey/internal/window"
	"bailey/update/release"
)

// TestLag stays behind the newest: releases come one after the other, and each time what is in force is looked at.
func TestLag(t *testing.T) {
	t.Parallel()
	urgent := func(d *release.Description) { d.Urgency = release.Urgent }
	elsewhere := func(d *release.Description) { d.Platforms = []string{"linux/arm64"} }
	epoch := func(n int64) func(*release.Description) { return func(d *release.Description) { d.Epoch = n } }
	type offer struct {
		change func(*release.Description)
		rules  string // "bad" fails its rehearsal
		want   int    // what is in force then; 0: what was installed by hand
	}
	for name, c := range map[string]struct {
		lag    int
		offers []offer
	}{
		"none":             {0, []offer{{want: 1}, {want: 2}}},
		"one":              {1, []offer{{want: 0}, {want: 1}, {want: 2}}},
		"two":              {2, []offer{{want: 0}, {want: 0}, {want: 1}, {want: 2}}},
		"urgent_at_once":   {2, []offer{{want: 0}, {want: 0}, {want: 1}, {change: urgent, want: 4}, {want: 4}, {want: 4}, {want: 5}}},
		"not_of_others":    {1, []offer{{want: 0}, {change: elsewhere, want: 0}, {want: 1}}},
		"an_epoch_at_once": {2, []offer{{want: 0}, {want: 0}, {want: 1}, {change: epoch(3), want: 4}, {change: epoch(3), want: 4}, {change: epoch(4), want: 6}}},
		"the_first_epoch":  {1, []offer{{change: epoch(3), want: 0}, {change: epoch(3), want: 1}, {change: epoch(3), want: 2}}},
		"bad_ones_not":     {1, []offer{{want: 0}, {change: urgent, rules: "bad", want: 0}, {want: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, content)
			w.preinstall("7.1", "rules 0")
			w.cfg.Lag = c.lag
			w.boot()
			for i, o := range c.offers {
				rules := o.rules
				if rules == "" {
					rules = fmt.Sprint("rules ", i+1)
				}
				w.offer(content, fmt.Sprint(i+1), map[string]string{"rules": rules}, o.change)
				for range 30 {
					w.step()
					w.now = w.now.Add(5 * time.Second)
				}
				if want := fmt.Sprint("7.1 with rules ", o.want); w.inForce() != want {
					t.Fatalf("with %d offered: %s, want %s; waiting %q", i+1, w.inForce(), want, w.status(content).Waiting)
				}
			}
		})
	}
}

// TestLagGivesWay: to the operator's word, and to the recovery policy.
func TestLagGivesWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, content)
	w.preinstall("7.1", "old")
	w.cfg.Lag = 1
	w.boot()
	w.offer(content, "1", map[string]string{"rules": "one"}, nil)
	w.step()
	if got := w.status(content).Waiting; got != "1: it is held back until it is 1 behind the newest, and it is 0" {
		t.Error(got)
	}
	if err := w.c.Pin(content, version("1")); err != nil {
		t.Fatal(err)
	}
	if u := w.settle(content); u.State != Committed || w.inForce() != "7.1 with one" {
		t.Fatalf("%s: %s", u.State, w.inForce())
	}
	if err := w.c.Pin(content, release.Version{}); err != nil {
		t.Fatal(err)
	}
	w.offer(content, "2", map[string]string{"rules": "two"}, nil)
	w.step()
	if got := w.status(content).Waiting; !strings.HasPrefix(got, "2: it is held back") {
		t.Fatal(got)
	}
	w.repo.policy = release.Policy{Schema: 1, Disabled: []release.Disabled{{Vendor: "acme", Product: "edr", Kind: release.Content, Version: version("1"), Reason: "crashes"}}}
	w.step()
	if u := w.settle(content); u.State != Committed || w.inForce() != "7.1 with two" {
		t.Errorf("%s: %s", u.State, w.inForce())
	}
}

// TestWindows: everything but the last step is done at once, and that in a window. The world begins on a Thursday at noon.
func TestWindows(t *testing.T) {
	t.Parallel()
	urgent := func(d *release.Description) { d.Urgency = release.Urgent }
	policy := release.Policy{Schema: 1, Disabled: []release.Disabled{{Vendor: "acme", Product: "edr", Kind: release.Content, Version: version("1"), Reason: "crashes"}}}
	for name, c := range map[string]struct {
		windows []string
		urgent  bool
		change  func(*release.Description)
		do      func(*world) error
		waits   time.Duration
	}{
		"waits":                       {windows: []string{"Mon-Fri 22:00-04:00", "Sat 00:00-24:00"}, waits: 10 * time.Hour},
		"for_days":                    {windows: []string{"Sun 02:00-03:00"}, waits: 62 * time.Hour},
		"is_open":                     {windows: []string{"Thu 11:00-13:00"}},
		"urgent_waits_too":            {windows: []string{"Mon-Fri 22:00-04:00"}, change: urgent, waits: 10 * time.Hour},
		"urgent_if_the_operator_says": {windows: []string{"Mon-Fri 22:00-04:00"}, urgent: true, change: urgent},
		"routine_all_the_same":        {windows: []string{"Mon-Fri 22:00-04:00"}, urgent: true, waits: 10 * time.Hour},
		"by_force":                    {windows: []string{"Sun 02:00-03:00"}, do: func(w *world) error { return w.c.Approve(content, true) }},
		"a_yes_is_no_force":           {windows: []string{"Fri 00:00-01:00"}, do: func(w *world) error { return w.c.Approve(content, false) }, waits: 12 * time.Hour},
		"away_from_what_is_disabled": {windows: []string{"Sun 02:00-03:00"}, urgent: true, do: func(w *world) error {
			w.repo.policy = policy
			w.step()
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, content)
			w.preinstall("7.1", "old")
			w.offer(content, "1", map[string]string{"rules": "one"}, nil)
			w.settle(content)
			begin := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
			w.now = begin
			week, err := window.ParseWeek(c.windows)
			if err != nil {
				t.Fatal(err)
			}
			own := w.cfg.Settings
			own.Windows, own.Urgent = week, c.urgent
			w.cfg.For = map[release.Stream]Settings{content: own}
			w.boot()
			w.offer(content, "2", map[string]string{"rules": "two"}, c.change)
			w.until(content, Shadow)
			if c.do != nil {
				w.step()
				if err := c.do(w); err != nil {
					t.Fatal(err)
				}
			}
			for w.inForce() != "7.1 with two" && w.now.Before(begin.Add(7*24*time.Hour)) {
				w.now = w.now.Add(time.Minute)
				w.step()
				if w.now.Before(begin.Add(c.waits)) && w.host.beside != "" {
					t.Fatalf("%s: it runs beside the one in force", w.now)
				}
				if u := w.update(content); w.now.Before(begin.Add(c.waits)) && !strings.HasPrefix(u.Reason, "outside of its windows until "+begin.Add(c.waits).Format("Mon 15:04")) {
					t.Fatalf("%s: %s %s", w.now, u.State, u.Reason)
				}
			}
			if got := w.now.Sub(begin); got < c.waits || got > c.waits+4*time.Minute {
				t.Errorf("it waited for %v, want %v", got, c.waits)
			}
		})
	}
}
