package product_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/product"
	"bailey/agent/product/keepertest"
)

// shadow starts a release beside the product lab.
func (y *yard) shadow(version, attempt string) product.View {
	y.t.Helper()
	v, err := y.m.Shadow(y.t.Context(), y.folder("lab", version, attempt, ""), approve)
	if err != nil {
		y.t.Fatal(err)
	}
	if v.Status.State != product.Running {
		y.t.Fatalf("it is %+v", v.Status)
	}
	return v
}

// failsBeside starts a release beside the product lab and kills it.
func (y *yard) failsBeside() product.View {
	y.t.Helper()
	v := y.shadow("2", "sleep")
	if err := unix.Kill(v.Status.PID, unix.SIGKILL); err != nil {
		y.t.Fatal(err)
	}
	y.eventually("it is said to have ended", func() bool {
		v, err := y.m.Beside("lab")
		return err == nil && v.Status.State == product.Failed && strings.Contains(v.Status.Reason, "signal 9")
	})
	return v
}

func (y *yard) promote(v product.View) product.View {
	y.t.Helper()
	now, err := y.m.Promote(v.Name, v.Release)
	if err != nil {
		y.t.Fatal(err)
	}
	return now
}

// settle ends what runs beside, and leaves alone what another release is about.
func (y *yard) settle() {
	y.t.Helper()
	if err := y.m.Settle(y.t.Context(), "lab", "9-another"); err != nil {
		y.t.Fatal(err)
	}
	release := y.show("lab").Release
	if v, err := y.m.Beside("lab"); err == nil {
		release = v.Release
	}
	if err := y.m.Settle(y.t.Context(), "lab", release); err != nil {
		y.t.Fatal(err)
	}
}

// home lists what a product has on the disk: its states and releases, with what one state holds.
func (y *yard) home() string {
	dir := filepath.Join(y.base, "state", "products", "lab")
	var out []string
	for _, pattern := range []string{"state*", "state*/*", "releases/*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			y.t.Fatal(err)
		}
		for _, f := range found {
			out = append(out, strings.TrimPrefix(f, dir+"/"))
		}
	}
	return strings.Join(out, " ")
}

func alive(pid int) bool { return unix.Kill(pid, 0) == nil }

// A release takes the place of the one that runs, which goes on beside it until it is settled; neither is started anew.
func TestShadow_and_promotion(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	old := y.install("lab", "1", "speak", "")
	put(t, filepath.Join(y.base, "state", "products", "lab", "state", "notes"), "remembered", 0o600)
	next := y.shadow("2", "speak")
	switch {
	case next.UID == old.UID || next.Status.PID == old.Status.PID:
		t.Errorf("they share a user or a process: %+v and %+v", old, next)
	case next.Previous != old.Release:
		t.Errorf("it goes back to %q", next.Previous)
	}
	if v := y.show("lab"); v.Release != old.Release || v.Status.PID != old.Status.PID || len(y.m.List()) != 1 {
		t.Errorf("the live one became %+v", v)
	}
	if again := y.shadow("2", "speak"); again.Status.PID != next.Status.PID {
		t.Error("what runs beside already was started again")
	}
	if _, err := y.m.Shadow(t.Context(), y.folder("lab", "3", "speak", ""), approve); !errors.Is(err, product.ErrBusy) {
		t.Errorf("a third one: %v", err)
	}

	now := y.promote(next)
	if now.Status.PID != next.Status.PID || now.Release != next.Release {
		t.Errorf("promoted %+v, it is %+v", next, now)
	}
	if v := y.show("lab"); v.Release != next.Release || !alive(old.Status.PID) || y.host.promoted != 1 {
		t.Errorf("it is %+v, the old one lives: %v", v, alive(old.Status.PID))
	}
	if v, err := y.m.Beside("lab"); err != nil || v.Release != old.Release {
		t.Errorf("beside it is %+v, %v", v, err)
	}
	if got, want := y.home(), "state state.2 state/notes state.2/notes"; !strings.HasPrefix(got, want) {
		t.Errorf("on the disk are %s", got)
	}
	y.say("lab", "hello")
	y.settle()
	if alive(old.Status.PID) {
		t.Error("the old one still runs")
	}
	if got, want := y.home(), "state.2 state.2/notes"; !strings.HasPrefix(got, want+" releases") {
		t.Errorf("on the disk are %s", got)
	}

	// And on: what was the second place is the first one's now.
	third := y.promote(y.shadow("3", "speak"))
	y.settle()
	if got := y.home(); !strings.HasPrefix(got, "state state/notes releases/2-") || strings.Contains(got, "releases/1-") {
		t.Errorf("on the disk are %s", got)
	}
	if v, err := y.m.GoBack(t.Context(), "lab", third.Release); err != nil || v.Release != next.Release || v.Status.State != product.Running {
		t.Errorf("after it was settled it goes back by a restart: %+v, %v", v, err)
	}
}

// What may be gone back to is warm: authority moves, nothing is started, and the state is as it left it.
func TestGoBack_to_the_warm_release(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	old := y.install("lab", "1", "speak", "")
	next := y.promote(y.shadow("2", "stubborn"))
	put(t, filepath.Join(y.base, "state", "products", "lab", "state.2", "rubbish"), "x", 0o600)
	begin := time.Now()
	v, err := y.m.GoBack(t.Context(), "lab", next.Release)
	if err != nil || v.Release != old.Release || v.Status.PID != old.Status.PID {
		t.Fatalf("%+v, %v", v, err)
	}
	if took := time.Since(begin); took > time.Second/2 { // the release that is left takes a second to be ended
		t.Errorf("going back took %v", took)
	}
	y.settle()
	if alive(next.Status.PID) || y.show("lab").Status.PID != old.Status.PID {
		t.Error("the bad one runs, or the good one was started again")
	}
	if got := y.home(); !strings.HasPrefix(got, "state releases/1-") || strings.Contains(got, "releases/2-") {
		t.Errorf("on the disk are %s", got)
	}
	y.say("lab", "hello")
}

// A promoted release that ends is followed by the warm one at once, and by nobody's word.
func TestPromoted_release_that_ends(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	old := y.install("lab", "1", "speak", "")
	next := y.promote(y.shadow("2", "sleep"))
	if err := unix.Kill(next.Status.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	y.eventually("the old one is back", func() bool {
		v := y.show("lab")
		return v.Release == old.Release && strings.HasPrefix(v.Status.Reason, "back from")
	})
	v := y.show("lab")
	if v.Status.PID != old.Status.PID || !strings.Contains(v.Status.Reason, "signal 9") || !strings.Contains(v.Status.Reason, next.Release) {
		t.Errorf("it is %+v", v.Status)
	}
	y.settle()
	if got := y.home(); !strings.HasPrefix(got, "state releases/1-") {
		t.Errorf("on the disk are %s", got)
	}
	y.stop()
	y.open() // the record says so, too
	if v := y.show("lab"); v.Release != old.Release || v.UID != old.UID {
		t.Errorf("the next agent finds %+v", v.Record)
	}
}

func TestUnderstudy_that_ends_is_nobodys_loss(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	old := y.install("lab", "1", "sleep", "")
	next := y.failsBeside()
	if _, err := y.m.Promote("lab", next.Release); !errors.Is(err, product.ErrNotBeside) {
		t.Errorf("promoted: %v", err)
	}
	if v := y.show("lab"); v.Status.PID != old.Status.PID || v.Status.State != product.Running {
		t.Errorf("the live one is %+v", v.Status)
	}
	y.settle()
	y.promote(y.shadow("2", "sleep"))
}

// The next agent takes over what is the product, and goes back, by a restart, to the state that the release before had.
func TestPromoted_release_outlives_the_agent(t *testing.T) {
	y, k := keptYard(t, nil)
	y.run()
	old := y.install("lab", "1", "speak", "")
	y.kept("lab")
	next := y.promote(y.shadow("2", "speak"))
	y.eventually("the keeper has the new one, and not the old one", func() bool {
		held := k.Holds()
		return slices.Contains(held, "product/lab.2/alive") && !slices.Contains(held, "product/lab/alive")
	})
	put(t, filepath.Join(y.base, "state", "products", "lab", "state.2", "rubbish"), "x", 0o600)
	y.leave()
	y.successor()
	y.run()
	if v := y.running("lab"); v.Status.PID != next.Status.PID || v.Release != next.Release {
		t.Errorf("the next agent has %+v", v)
	}
	if alive(old.Status.PID) {
		t.Error("what was warm outlived its agent")
	}
	v, err := y.m.GoBack(t.Context(), "lab", next.Release)
	if err != nil || v.Release != old.Release || v.UID != old.UID {
		t.Fatalf("%+v, %v", v, err)
	}
	if v := y.running("lab"); v.Status.PID == next.Status.PID || v.State != "state" {
		t.Errorf("it is %+v", v)
	}
	keepertest.Reap()
}

func TestShadow_where_it_cannot_be(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	alone := func(what, more string) {
		t.Helper()
		if _, err := y.m.Shadow(t.Context(), y.folder("lab", "2", "sleep", more), approve); !errors.Is(err, product.ErrAlone) {
			t.Errorf("%s: %v", what, err)
		}
	}
	alone("of a product that is not installed", "")
	y.install("lab", "1", "sleep", "")
	alone("whose state is exclusive", "exclusive_state = true\n")
	no := errors.New("no")
	if _, err := y.m.Shadow(t.Context(), y.folder("lab", "2", "sleep", "[request]\nsee = [\"exec\"]\n"), func(product.Request) error { return no }); !errors.Is(err, no) {
		t.Errorf("one that asks for more, and gets a no: %v", err)
	}
	link := filepath.Join(y.base, "state", "products", "lab", "state", "link")
	if err := os.Symlink("/etc/shadow", link); err != nil {
		t.Fatal(err)
	}
	alone("whose state cannot be copied whole", "")
	if _, err := y.m.Stop(t.Context(), "lab"); err != nil {
		t.Fatal(err)
	}
	alone("of a product that is stopped", "")
	if got := y.home(); strings.Contains(got, "state.2") || strings.Contains(got, "releases/2-") {
		t.Errorf("left behind: %s", got)
	}
}

// What an operator changes is not what runs beside: that ends.
func TestUnderstudy_ends_with_what_it_was_made_for(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	y.install("lab", "1", "sleep", "")
	for what, do := range map[string]func() error{
		"grant": func() error { _, err := y.m.Grant(t.Context(), "lab", "memory:64MiB"); return err },
		"install": func() error {
			_, err := y.m.Install(t.Context(), y.folder("lab", "3", "sleep", ""), approve)
			return err
		},
		"stop": func() error { _, err := y.m.Stop(t.Context(), "lab"); return err },
	} {
		if _, err := y.m.Start(t.Context(), "lab"); err != nil {
			t.Fatal(err)
		}
		y.shadow("2", "sleep")
		if err := do(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		y.eventually("nothing is beside after "+what, func() bool { _, err := y.m.Beside("lab"); return err != nil })
	}
	if _, err := y.m.Start(t.Context(), "lab"); err != nil {
		t.Fatal(err)
	}
	next := y.shadow("2", "stubborn")
	if err := y.m.Remove(t.Context(), "lab", true); err != nil {
		t.Fatal(err)
	}
	if alive(next.Status.PID) || y.home() != "" {
		t.Errorf("left behind: %s", y.home())
	}
}

// What failed beside can be installed all the same, by whoever wants it.
func TestInstall_of_what_failed_beside(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	old := y.install("lab", "1", "sleep", "")
	next := y.failsBeside()
	v := y.install("lab", "2", "sleep", "")
	if v.Release != next.Release || v.Status.PID == old.Status.PID || v.Status.PID == 0 || !alive(v.Status.PID) {
		t.Errorf("it is %+v", v)
	}
	y.eventually("nothing is beside", func() bool { _, err := y.m.Beside("lab"); return err != nil })
	if got := y.home(); !strings.HasPrefix(got, "state releases/1-") || !strings.Contains(got, "releases/2-") {
		t.Errorf("on the disk are %s", got)
	}
}
