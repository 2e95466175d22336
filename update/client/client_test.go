package client

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bailey/update/bundle"
	"bailey/update/release"
	"bailey/update/trust"
)

func TestContentAndCodeComeIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, code, content)
	w.preinstall("7.1", "old")
	w.offer(content, "1", map[string]string{"rules": "new"}, nil)
	if u := w.settle(content); u.State != Committed || w.inForce() != "7.1 with new" {
		t.Errorf("%s %s: %s", u.State, u.Reason, w.inForce())
	}
	w.offer(code, "7.2", map[string]string{"version": "7.2"}, func(d *release.Description) {
		d.Requires = map[string]release.Constraint{"content": constraint(">=1"), "platform": constraint(">=1.4 <2")}
	})
	if u := w.settle(code); u.State != Committed || w.inForce() != "7.2 with new" {
		t.Errorf("%s %s: %s", u.State, u.Reason, w.inForce())
	}
	want := []string{"1 fetch", "1 stage", "1 rehearse", "1 shadow", "1 promote", "1 watch", "1 committed", "7.2 fetch", "7.2 stage", "7.2 rehearse", "7.2 shadow", "7.2 promote", "7.2 watch", "7.2 committed"}
	if !slices.Equal(w.told, want) {
		t.Errorf("told %q", w.told)
	}
	moves, err := w.c.History(100)
	if err != nil || len(moves) != len(want) || moves[0].From != "" || moves[1].From != Fetch {
		t.Errorf("history %+v, %v", moves, err)
	}
	if left, _ := filepath.Glob(filepath.Join(w.cfg.Dir, "*s", "*")); len(left) != 4 { // two records, two bases
		t.Errorf("left: %q", left)
	}
}

func constraint(text string) release.Constraint {
	c, err := release.ParseConstraint(text)
	if err != nil {
		panic(err)
	}
	return c
}

func TestWhatFailsItsRehearsalNeverGetsASay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, content)
	w.preinstall("7.1", "old")
	w.offer(content, "1", map[string]string{"rules": "bad"}, nil)
	u := w.settle(content)
	if u.State != Refused || u.Reason != "rehearsal: it crashed" || w.host.installs != 0 || string(u.Rehearsal) == "" {
		t.Errorf("%+v", u)
	}
	for range 20 { // nor is it tried again
		w.now = w.now.Add(time.Hour)
		w.step()
	}
	if !slices.Equal(w.told, []string{"1 fetch", "1 stage", "1 rehearse", "1 refused"}) {
		t.Errorf("told %q", w.told)
	}
	if err := w.c.Approve(content, true); err != nil { // but by force
		t.Fatal(err)
	}
	w.host.harm = "it crashed"
	if u := w.settle(content); u.State != RolledBack || w.inForce() != "7.1 with old" || w.host.installs != 1 {
		t.Errorf("%s %s: %s", u.State, u.Reason, w.inForce())
	}
}

// TestGoodAndBadInTurnDoNotFlap: after three that went wrong within a day nothing more is tried until the operator says so.
func TestGoodAndBadInTurnDoNotFlap(t *testing.T) {
	t.Parallel()
	w := newWorld(t, content)
	w.preinstall("7.1", "old")
	for i := range 8 {
		rules := "bad"
		if i%2 == 1 {
			rules = fmt.Sprint("good ", i)
		}
		w.offer(content, fmt.Sprint(i+1), map[string]string{"rules": rules}, nil)
		for range 30 {
			w.now = w.now.Add(5 * time.Second)
			w.step()
		}
	}
	st := w.status(content)
	if w.inForce() != "7.1 with good 3" || !strings.Contains(st.Record.Frozen, "3 releases went wrong") || !strings.HasPrefix(st.Waiting, "frozen: ") {
		t.Errorf("%s, frozen %q, waiting %q", w.inForce(), st.Record.Frozen, st.Waiting)
	}
	if err := w.c.Resume(content); err != nil {
		t.Fatal(err)
	}
	if u := w.settle(content); u.State != Committed || w.inForce() != "7.1 with good 7" {
		t.Errorf("%s %s: %s", u.State, u.Reason, w.inForce())
	}
}

func TestTheOperatorSteers(t *testing.T) {
	t.Parallel()
	t.Run("asks_for_more", func(t *testing.T) {
		w := newWorld(t, content)
		w.preinstall("7.1", "old")
		w.offer(content, "1", map[string]string{"rules": "new"}, nil)
		w.host.asks = []string{"deny"}
		if u := w.settle(content); u.State != Approve || !strings.Contains(u.Reason, "deny") || w.host.installs != 0 {
			t.Fatalf("%+v", u)
		}
		w.boot()
		if err := w.c.Approve(content, false); err != nil {
			t.Fatal(err)
		}
		for range 40 {
			w.now = w.now.Add(5 * time.Second)
			w.step()
		}
		if w.inForce() != "7.1 with new" {
			t.Error(w.inForce())
		}
	})
	t.Run("pause", func(t *testing.T) {
		w := newWorld(t, content)
		w.preinstall("7.1", "old")
		w.offer(content, "1", map[string]string{"rules": "new"}, nil)
		if err := w.c.Pause(content); err != nil {
			t.Fatal(err)
		}
		for range 40 {
			w.now = w.now.Add(time.Minute)
			w.step()
		}
		if u := w.update(content); u.State != Promote || w.inForce() != "7.1 with old" {
			t.Fatalf("%s: %s", u.State, w.inForce())
		}
		if err := w.c.Resume(content); err != nil {
			t.Fatal(err)
		}
		if u := w.settle(content); u.State != Committed {
			t.Errorf("%+v", u)
		}
	})
	t.Run("pin_skip_and_back", func(t *testing.T) {
		w := newWorld(t, content)
		w.preinstall("7.1", "old")
		for i := 1; i <= 3; i++ {
			w.offer(content, fmt.Sprint(i), map[string]string{"rules": fmt.Sprint("rules ", i)}, nil)
		}
		if err := w.c.Skip(content, version("3")); err != nil {
			t.Fatal(err)
		}
		if u := w.settle(content); u.State != Committed || w.inForce() != "7.1 with rules 2" {
			t.Fatalf("%s: %s", u.State, w.inForce())
		}
		if err := w.c.Pin(content, version("1")); err != nil {
			t.Fatal(err)
		}
		w.step()
		if u := w.settle(content); u.State != Committed || w.inForce() != "7.1 with rules 1" {
			t.Fatalf("%s: %s", u.State, w.inForce())
		}
		if err := w.c.Back(content); err != nil {
			t.Fatal(err)
		}
		w.step()
		if u := w.update(content); u.State != RolledBack || w.inForce() != "7.1 with rules 2" || w.status(content).Record.Installed != "2" {
			t.Errorf("%s: %s, %+v", u.State, w.inForce(), w.status(content).Record)
		}
		if err := w.c.Back(content); !errors.Is(err, ErrNothing) {
			t.Errorf("back twice: %v", err)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		w := newWorld(t, content)
		if err := w.c.Pause(code); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "acme/edr/content") {
			t.Error(err)
		}
		if err := w.c.Approve(content, false); !errors.Is(err, ErrNothing) {
			t.Error(err)
		}
	})
}

// TestWhatIsNotTaken says why.
func TestWhatIsNotTaken(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		version string
		change  func(*release.Description)
		cfg     func(*Config)
		want    string
	}{
		"another_platform": {"2", func(d *release.Description) { d.Platforms = []string{"linux/arm64"} }, nil, "2: it is not for linux/amd64"},
		"a_newer_bailey": {"2", func(d *release.Description) {
			d.Requires = map[string]release.Constraint{"platform": constraint(">=2")}
		}, nil, "2: it needs Bailey >=2, and that is 1.4"},
		"newer_code":     {"2", func(d *release.Description) { d.Requires = map[string]release.Constraint{"code": constraint(">=8")} }, nil, "2: it needs the code of edr >=8, and that is 7.1"},
		"deferred":       {"2", nil, func(c *Config) { c.Defer = time.Hour }, "2: it is deferred until 2026-11-26T13:00:00Z"},
		"an_epoch_below": {"2", nil, nil, "2: its epoch is 0, and 5 was in force"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, content)
			w.preinstall("7.1", "old")
			if c.want == "2: its epoch is 0, and 5 was in force" {
				w.offer(content, "1", map[string]string{"rules": "first"}, func(d *release.Description) { d.Epoch = 5 })
				w.settle(content)
			}
			if c.cfg != nil {
				c.cfg(&w.cfg)
				w.boot()
			}
			w.offer(content, c.version, map[string]string{"rules": "new"}, c.change)
			w.step()
			if got := w.status(content).Waiting; got != c.want {
				t.Errorf("waiting %q, want %q", got, c.want)
			}
		})
	}
	t.Run("not_installed", func(t *testing.T) {
		w := newWorld(t, content)
		w.offer(content, "1", map[string]string{"rules": "new"}, nil)
		w.step()
		if got := w.status(content).Waiting; got != "1: its product is not installed" {
			t.Errorf("waiting %q", got)
		}
	})
	t.Run("what_the_policy_disables_leaves", func(t *testing.T) {
		w := newWorld(t, content)
		w.preinstall("7.1", "old")
		w.offer(content, "1", map[string]string{"rules": "one"}, nil)
		w.settle(content)
		w.offer(content, "2", map[string]string{"rules": "two"}, nil)
		w.settle(content)
		w.repo.policy = release.Policy{Schema: 1, Disabled: []release.Disabled{{Vendor: "acme", Product: "edr", Kind: release.Content, Version: version("2"), Reason: "crashes"}}}
		w.step()
		if u := w.settle(content); u.State != Committed || w.inForce() != "7.1 with one" {
			t.Errorf("%s: %s", u.State, w.inForce())
		}
	})
	t.Run("what_is_taken_back_before_its_say", func(t *testing.T) {
		w := newWorld(t, content)
		w.preinstall("7.1", "old")
		w.offer(content, "1", map[string]string{"rules": "one"}, nil)
		if err := w.c.Pause(content); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			w.step()
		}
		w.repo.offers = nil
		w.step()
		if u := w.update(content); u.State != Superseded || w.host.installs != 0 {
			t.Errorf("%+v", u)
		}
	})
}

// TestNothingComesInOnOldNews: a mirror that went silent cannot keep what its vendor takes back from being heard of.
func TestNothingComesInOnOldNews(t *testing.T) {
	t.Parallel()
	w := newWorld(t, content)
	w.preinstall("7.1", "old")
	w.offer(content, "1", map[string]string{"rules": "one"}, nil)
	w.until(content, Promote)
	w.repo.down = errors.New("no route to host")
	w.boot()
	for range 20 {
		w.now = w.now.Add(time.Minute)
		w.step()
	}
	if u := w.update(content); u.State != Promote || !strings.Contains(u.Reason, "no route to host") || w.host.installs != 0 {
		t.Fatalf("%+v", u)
	}
	w.repo.down = nil
	w.now = w.now.Add(time.Minute)
	if u := w.settle(content); u.State != Committed {
		t.Errorf("%+v", u)
	}
}

// TestWhatIsInForceIsWatched: a release that was put in force by a step that nobody wrote down is watched at once, seen mirrors or not, and goes back at harm.
func TestWhatIsInForceIsWatched(t *testing.T) {
	t.Parallel()
	w := newWorld(t, content)
	w.preinstall("7.1", "old")
	w.offer(content, "1", map[string]string{"rules": "one"}, nil)
	w.until(content, Promote)
	if err := w.host.Install(t.Context(), "edr", filepath.Join(w.c.staged(content), folderDir), w.update(content).Release); err != nil {
		t.Fatal(err)
	}
	w.repo.down = errors.New("no route to host")
	w.host.harm = "it hangs"
	w.boot()
	w.step()
	if u := w.update(content); u.State != Watch || w.host.installs != 1 {
		t.Fatalf("%+v", u)
	}
	if u := w.settle(content); u.State != RolledBack || w.inForce() != "7.1 with old" {
		t.Errorf("%+v, %s", u, w.inForce())
	}
}

// TestNewerThanWhatCameThroughHere: what somebody brought that is newer is what offers are compared with; what is older is not, for it was somebody's will.
func TestNewerThanWhatCameThroughHere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, code)
	w.preinstall("7.1", "old")
	w.offer(code, "7.2", map[string]string{"version": "7.2"}, nil)
	w.settle(code)
	w.preinstall("7.4", "by hand")
	w.offer(code, "7.3", map[string]string{"version": "7.3"}, nil)
	w.step()
	if r := w.status(code).Record; r.Installed != "7.4" || r.Current.State != Committed || r.Current.version() != "7.2" {
		t.Errorf("%+v, %+v", r, r.Current)
	}
	w.preinstall("7.0", "by hand")
	w.step()
	if r := w.status(code).Record; r.Installed != "7.4" || w.inForce() != "7.0 with by hand" {
		t.Errorf("%+v, %s", r, w.inForce())
	}
}

func TestABadBundleIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(*world)
		want  string
	}{
		"no_bundle":          {func(w *world) { w.spoil([]byte("nothing of the kind")) }, ""},
		"says_another_thing": {func(w *world) { w.repo.offers[content.String()][0].Release.Epoch = 9 }, "something else of itself"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, content)
			w.preinstall("7.1", "old")
			w.offer(content, "1", map[string]string{"rules": "one"}, nil)
			c.spoil(w)
			if u := w.settle(content); u.State != Refused || !strings.Contains(u.Reason, c.want) || w.host.installs != 0 {
				t.Errorf("%+v", u)
			}
		})
	}
}

// spoil makes the newest release of content have other bytes, signed for.
func (w *world) spoil(data []byte) {
	o := &w.repo.offers[content.String()][0]
	o.Target = w.add(o.Path, data)
}

// TestADeltaIsTakenAndItsBundleIfItDoesNotFit.
func TestADeltaIsTakenAndItsBundleIfItDoesNotFit(t *testing.T) {
	t.Parallel()
	for _, fits := range []bool{true, false} {
		w := newWorld(t, content)
		w.preinstall("7.1", "old")
		w.offer(content, "1", map[string]string{"rules": strings.Repeat("one ", 1000)}, nil)
		first := w.repo.files[w.repo.offers[content.String()][0].SHA256]
		w.settle(content)
		w.offer(content, "2", map[string]string{"rules": strings.Repeat("one ", 1000) + "two"}, nil)
		o := &w.repo.offers[content.String()][0]
		var delta bytes.Buffer
		if err := bundle.MakeDelta(&delta, bytes.NewReader(first), bytes.NewReader(w.repo.files[o.SHA256]), bundle.Limits{}); err != nil {
			t.Fatal(err)
		}
		text := delta.Bytes()
		if !fits {
			text = []byte("nothing of the kind")
		} else {
			delete(w.repo.files, o.SHA256) // there is no other way
		}
		o.Deltas = []trust.Delta{{Target: w.add(release.DeltaPath(o.Path, version("1")), text), Base: version("1")}}
		if u := w.settle(content); u.State != Committed || !strings.HasSuffix(w.inForce(), "two") {
			t.Errorf("fits %t: %+v", fits, u)
		}
	}
}

// TestABusyHostIsAskedAgain, and one that always fails not for ever.
func TestABusyHostIsAskedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, content)
	w.preinstall("7.1", "old")
	w.offer(content, "1", map[string]string{"rules": "one"}, nil)
	w.host.busy = 30
	if u := w.settle(content); u.State != Committed {
		t.Errorf("%+v", u)
	}
	w.offer(content, "2", map[string]string{"rules": "two"}, nil)
	w.repo.files = map[string][]byte{}
	for range 400 {
		w.now = w.now.Add(time.Minute)
		w.step()
	}
	if u := w.update(content); u.State != Refused || !strings.Contains(u.Reason, "it failed 12 times") {
		t.Errorf("%+v", u)
	}
}

func TestAnotherReleaseInBetweenIsStagedAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, content)
	w.preinstall("7.1", "old")
	w.offer(content, "1", map[string]string{"rules": "one"}, nil)
	w.until(content, Promote)
	w.preinstall("7.2", "old") // by hand
	if u := w.settle(content); u.State != Committed || w.inForce() != "7.2 with one" {
		t.Errorf("%s: %s", u.State, w.inForce())
	}
}

func TestARecordThatCannotBeReadIsNoReasonToForget(t *testing.T) {
	t.Parallel()
	w := newWorld(t, content)
	path := filepath.Join(w.cfg.Dir, streamsDir, content.Role()+".json")
	for _, text := range []string{"{", `{"current":{"state":"dance"}}`} {
		write(t, path, text)
		if _, err := New(w.cfg); err == nil || !strings.Contains(err.Error(), "to begin anew") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestWhatIsLeftIsSaid: an update that ended has ended, and what it could not clear away is seen.
func TestWhatIsLeftIsSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t, content)
	w.preinstall("7.1", "old")
	bases := filepath.Join(w.cfg.Dir, basesDir)
	if err := os.Remove(bases); err != nil {
		t.Fatal(err)
	}
	write(t, bases, "no directory")
	w.offer(content, "1", map[string]string{"rules": "one"}, nil)
	if u := w.settle(content); u.State != Committed || w.status(content).Record.Problem == "" {
		t.Errorf("%s, problem %q", u.State, w.status(content).Record.Problem)
	}
}

// TestShadow: a release runs beside the one in force before it takes its place, and what speaks against it there ends it.
func TestShadow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		set    func(*world)
		state  State
		reason string
	}{
		"good":                       {func(*world) {}, Committed, "it did no harm"},
		"denies_what_is_allowed":     {func(w *world) { w.host.doubt = "it denies 21 files" }, Refused, "shadow: it denies 21 files"},
		"never_says_what_it_wants":   {func(w *world) { w.host.slow = true }, Refused, "shadow: it did not say what it wants within 30s"},
		"cannot_run_beside":          {func(w *world) { w.host.alone = true }, Committed, "it did no harm"},
		"harms_after_its_promotion":  {func(w *world) { w.host.harm = "it crashed" }, RolledBack, "it crashed"},
		"cannot_run_beside_and_harm": {func(w *world) { w.host.alone, w.host.harm = true, "it crashed" }, RolledBack, "it crashed"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, content)
			w.cfg.Shadow = 30 * time.Second
			w.boot()
			w.preinstall("7.1", "old")
			w.offer(content, "1", map[string]string{"rules": "new"}, nil)
			c.set(w)
			w.until(content, Shadow)
			entered := w.now
			for w.update(content).State == Shadow {
				w.step()
				if w.update(content).State == Promote && !w.host.alone && w.now.Sub(entered) < 30*time.Second {
					t.Errorf("it is promoted after %v", w.now.Sub(entered))
				}
				w.now = w.now.Add(time.Second)
			}
			u := w.settle(content)
			w.step()
			if u.State != c.state || u.Reason != c.reason || w.host.beside != "" || w.host.warm != "" {
				t.Errorf("%s: %s; beside it is %q, warm %q", u.State, u.Reason, w.host.beside, w.host.warm)
			}
			if w.host.alone == (string(u.Shadow) == `{"compared":"5"}`) {
				t.Errorf("the comparison that is kept: %s", u.Shadow)
			}
			want := "7.1 with new"
			if c.state != Committed {
				want = "7.1 with old"
			}
			if w.inForce() != want {
				t.Errorf("in force is %s", w.inForce())
			}
		})
	}
}

// TestNothingRunsBesideForNothing: what the operator or a newer release ends does not go on beside.
func TestNothingRunsBesideForNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, content)
	w.cfg.Shadow = time.Hour
	w.boot()
	w.preinstall("7.1", "old")
	w.offer(content, "1", map[string]string{"rules": "one"}, nil)
	w.until(content, Shadow)
	w.step()
	if w.host.beside == "" {
		t.Fatal("nothing runs beside")
	}
	if got := string(w.update(content).Shadow); got == "" {
		t.Error("how it does there is not shown while it runs")
	}
	if err := w.c.Skip(content, version("1")); err != nil {
		t.Fatal(err)
	}
	w.step()
	if w.host.beside != "" || w.update(content).State != Superseded {
		t.Errorf("%s, and %q runs beside", w.update(content).State, w.host.beside)
	}
}
