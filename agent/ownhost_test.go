package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bailey/agent/config"
	"bailey/agent/health"
	"bailey/agent/inforce"
	"bailey/internal/buildinfo"
	"bailey/update/client"
)

// ownFor is an agent that knows no more than which release it is.
func ownFor(t *testing.T, r *inforce.Record) (*ownHost, string) {
	t.Helper()
	a := &Agent{
		cfg: &config.Config{Agent: config.Agent{State: t.TempDir()}}, log: slog.New(slog.DiscardHandler), health: health.NewRegistry(),
		build: buildinfo.Info{Version: "v1.1"},
	}
	a.own = newOwn(a)
	self, err := ownName(a.build.Version)
	if err != nil {
		t.Fatal(err)
	}
	if r != nil {
		if r.Name == "self" {
			r.Name = self
		}
		if r.Previous == "self" {
			r.Previous = self
		}
		if err := inforce.Write(a.own.state, r); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.own.run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return &ownHost{a, a.own}, self
}

func (h *ownHost) record(t *testing.T) inforce.Record {
	t.Helper()
	r, err := inforce.Read(h.own.state)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestTheRecordFollows: an agent that finds that another one should run says that the keeper went back to it, and knows what is before it.
func TestTheRecordFollows(t *testing.T) {
	t.Parallel()
	const next = "1.2-aaaaaaaaaaaa"
	for _, c := range []struct {
		name     string
		record   *inforce.Record
		gone     string
		previous string
		proven   bool
	}{
		{name: "none"},
		{name: "this_one_on_trial", record: &inforce.Record{Name: "self", Previous: "1.0-bbbbbbbbbbbb"}, previous: "1.0-bbbbbbbbbbbb"},
		{name: "the_one_before", record: &inforce.Record{Name: next, Previous: "self", Earlier: "1.0-bbbbbbbbbbbb"}, gone: next, previous: "1.0-bbbbbbbbbbbb", proven: true},
		{name: "the_keepers_own", record: &inforce.Record{Name: next, Previous: "1.0-bbbbbbbbbbbb", Earlier: "1.0-cccccccccccc", Proven: true}, gone: next, proven: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h, self := ownFor(t, c.record)
			in, err := h.Installed("agent")
			if err != nil || in.Name != self || in.Version != "1.1" || (in.Why != "") != (c.gone != "") {
				t.Errorf("installed is %+v, %v", in, err)
			}
			r := h.record(t)
			if c.record != nil && r.Name != self || r.Gone != c.gone || r.Previous != c.previous || r.Proven != c.proven {
				t.Errorf("the record is %+v", r)
			}
		})
	}
}

// TestOneThatIsGoneBackFrom does not say that the keeper did: it is about to leave.
func TestOneThatIsGoneBackFrom(t *testing.T) {
	t.Parallel()
	self, err := ownName("1.1")
	if err != nil {
		t.Fatal(err)
	}
	h, _ := ownFor(t, &inforce.Record{Name: "1.0-bbbbbbbbbbbb", Proven: true, Gone: self})
	if r := h.record(t); r.Name != "1.0-bbbbbbbbbbbb" || r.Gone != self {
		t.Errorf("the record is %+v", r)
	}
}

// TestSettle: what was watched to its end is proven, and only what can be gone back to is kept.
func TestSettle(t *testing.T) {
	t.Parallel()
	h, self := ownFor(t, &inforce.Record{Name: "self", Previous: "1.0-bbbbbbbbbbbb", Earlier: "0.9-cccccccccccc"})
	for _, name := range []string{self, "1.0-bbbbbbbbbbbb", "0.9-cccccccccccc", "1.5-dddddddddddd"} {
		if err := os.MkdirAll(filepath.Join(inforce.Releases(h.own.state), name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	left := func() string {
		entries, err := os.ReadDir(inforce.Releases(h.own.state))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, strings.Split(e.Name(), "-")[0])
		}
		return strings.Join(names, " ")
	}
	if err := h.Settle(t.Context(), "agent", "1.5-dddddddddddd"); err != nil {
		t.Fatal(err)
	}
	if r := h.record(t); r.Proven || left() != "0.9 1.0 1.1" {
		t.Errorf("after another's end: %+v, %s", r, left())
	}
	if err := h.Settle(t.Context(), "agent", self); err != nil {
		t.Fatal(err)
	}
	if r := h.record(t); !r.Proven || r.Previous != "1.0-bbbbbbbbbbbb" || left() != "1.0 1.1" {
		t.Errorf("after its own: %+v, %s", r, left())
	}
}

// TestWhatIsDoneIsNoError: the steps that were half done, or that the machine undid, are found so.
func TestWhatIsDoneIsNoError(t *testing.T) {
	t.Parallel()
	h, self := ownFor(t, &inforce.Record{Name: "self", Previous: "1.0-bbbbbbbbbbbb", Gone: "1.2-aaaaaaaaaaaa", Why: "it hung"})
	if err := h.Install(t.Context(), "agent", t.TempDir(), self); err != nil {
		t.Errorf("install what runs: %v", err)
	}
	if err := h.Install(t.Context(), "agent", t.TempDir(), "1.2-aaaaaaaaaaaa"); err != nil {
		t.Errorf("install what the machine went back from: %v", err)
	}
	if err := h.Back(t.Context(), "agent", "1.2-aaaaaaaaaaaa"); err != nil {
		t.Errorf("go back from what does not run: %v", err)
	}
	if err := h.Install(t.Context(), "agent", t.TempDir(), "1.3-dddddddddddd"); err == nil {
		t.Error("an empty folder is installed")
	}
	if _, err := h.Shadow(t.Context(), "agent", "", ""); !errors.Is(err, client.ErrAlone) {
		t.Errorf("shadow: %v", err)
	}
	if r := h.record(t); r.Name != self {
		t.Errorf("the record is %+v", r)
	}
}

// TestRehearsalsThatTheMachineDoesNotSurvive are not begun for ever.
func TestRehearsalsThatTheMachineDoesNotSurvive(t *testing.T) {
	t.Parallel()
	h, _ := ownFor(t, nil)
	for range triesAllowed {
		if _, err := h.begin("1.2-aaaaaaaaaaaa"); err != nil { // and no end
			t.Fatal(err)
		}
	}
	r, err := h.Rehearse(t.Context(), "agent", t.TempDir(), "1.2-aaaaaaaaaaaa")
	if err != nil || r.Passed || len(r.Reasons) != 1 || !strings.Contains(r.Reasons[0], "ended 2 times while it was rehearsed") {
		t.Errorf("%+v, %v", r, err)
	}
	if n, err := h.begin("1.2-aaaaaaaaaaaa"); n != 1 || err != nil { // the operator wants it tried again
		t.Errorf("%d, %v", n, err)
	}
}

// TestPartsThatAreWorse: a part that is worse than it was, and stays so, is harm; one that is new, or not the agent's doing, is none.
func TestPartsThatAreWorse(t *testing.T) {
	t.Parallel()
	reg := health.NewRegistry()
	w := &ownWatch{
		a: &Agent{health: reg}, since: map[string]time.Time{},
		before: inforce.Before{Health: map[string]string{"sensor.file": "ok", "guard": "degraded", "clock": "ok"}},
	}
	now := time.Now()
	reg.Set(health.Entry{Component: "guard", Status: health.Degraded})
	reg.Set(health.Entry{Component: "clock", Status: health.Failed})
	reg.Set(health.Entry{Component: "new.feature", Status: health.Degraded})
	reg.Set(health.Entry{Component: "sensor.file", Status: health.Degraded, Summary: "it starts"})
	for _, c := range []struct {
		at     time.Duration
		status health.Status
		harm   string
	}{
		{0, health.Degraded, ""},
		{settling / 2, health.OK, ""},
		{settling, health.Degraded, ""},
		{2*settling - 1, health.Degraded, ""},
		{2 * settling, health.Failed, "sensor.file is failed: it starts"},
	} {
		reg.Set(health.Entry{Component: "sensor.file", Status: c.status, Summary: "it starts"})
		if harm := w.settled(now.Add(c.at)); harm != c.harm {
			t.Errorf("after %v: %q", c.at, harm)
		}
	}
}
