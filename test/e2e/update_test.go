package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	controlv1 "bailey/api/control/v1"
	"bailey/test/rig"
)

// reaches waits until a version of the product engine is in a state and returns its stream.
func reaches(a *rig.Agent, kind, version, state string) *controlv1.UpdateStream {
	a.T.Helper()
	return a.Reaches("engine/"+kind, version, 60*time.Second, state)
}

// followed starts an agent that follows streams of the product engine, with further lines of its configuration and of [update] in it, and installs
// the product.
func followed(t *testing.T, config, update string, spec rig.Spec, streams ...string) (*rig.Agent, *rig.Vendor) {
	t.Helper()
	a := rig.New(t, built, "")
	v := a.Vendor("engine")
	a.WriteConfig(config + v.Config(update, streams...))
	a.Start()
	t.Cleanup(a.Stop)
	a.Install(spec)
	return a, v
}

// TestUpdates: releases come in from a repository by themselves. What is broken dies in its rehearsal while the installed release answers
// every question; what slipped past it is taken back; and what is good stays.
func TestUpdates(t *testing.T) {
	a, v := followed(t, "", "shadow = \"0s\"\nwatch = \"2s\"", engine("1.0.0", goodContent, nil), "engine/code", "engine/content")
	const content, code = "content", "code"
	evil := a.Program("evil")
	programs, _ := lived(a, "engine")

	v.Content("engine", "2026.11.26.1", goodContent+"prefix "+evil+"\n")
	if s := reaches(a, content, "2026.11.26.1", "committed"); s.GetInstalled() != "2026.11.26.1" || !s.GetUpdate().GetRehearsal().GetPassed() {
		t.Errorf("it is %v", s)
	}
	if err := execs(evil); !denied(err) {
		t.Errorf("what the new content denies: %v", err)
	}
	if err := execs(programs[0]); err != nil {
		t.Errorf("what it does not: %v", err)
	}

	// Channel file 291: nobody has to do anything.
	before := a.Product("engine")
	v.Content("engine", "2026.11.26.2", badContent)
	s := reaches(a, content, "2026.11.26.2", "refused")
	if why := s.GetUpdate().GetReason(); !strings.Contains(why, "rehearsal: it exited with status 1 while it was asked about") {
		t.Errorf("refused because of %q", why)
	}
	after := a.Product("engine")
	if c := after.GetCounters(); after.GetPid() != before.GetPid() || after.GetRelease() != before.GetRelease() || c.GetMisses() != 0 || c.GetAnswers() != c.GetQuestions() {
		t.Errorf("the installed release was %v and is %v", before, after)
	}
	if err := execs(evil); !denied(err) {
		t.Errorf("what the installed content denies: %v", err)
	}
	if out := a.Must("update", "list"); !strings.Contains(out, "refused") || !strings.Contains(out, "2026.11.26.1") {
		t.Errorf("the list says %s", out)
	}

	// The same, past its rehearsal: it is in force, crashes at the first question, and is taken back.
	a.Must("update", "apply", "acme/engine/content", "--force")
	a.Eventually("it is tried and taken back", 60*time.Second, func() error {
		_ = execs(programs[1]) // somebody asks
		if u := a.Stream("engine/content").GetUpdate(); u.GetState() != "rolled_back" {
			return fmt.Errorf("%s: %s", u.GetState(), u.GetReason())
		}
		return nil
	})
	a.Running("engine")
	if p := a.Product("engine"); p.GetRelease() != before.GetRelease() {
		t.Errorf("in force is %s, before it was %s", p.GetRelease(), before.GetRelease())
	}
	if err := execs(evil); !denied(err) {
		t.Errorf("what the content before denies: %v", err)
	}

	// Code brings its product, and the content stays.
	spec := engine("1.1.0", goodContent, nil)
	v.Publish("engine/code", "1.1.0", a.Folder(spec))
	reaches(a, code, "1.1.0", "committed")
	if p := a.Product("engine"); !strings.HasPrefix(p.GetRelease(), "1.1.0-") {
		t.Errorf("in force is %v", p)
	}
	if err := execs(evil); !denied(err) {
		t.Errorf("what the content denies: %v", err)
	}

	// And the operator takes it back.
	a.Must("update", "rollback", "acme/engine/code")
	reaches(a, code, "1.1.0", "rolled_back")
	a.Running("engine")
	if p := a.Product("engine"); !strings.HasPrefix(p.GetRelease(), "1.0.0-") {
		t.Errorf("in force is %v", p)
	}
	history := a.Must("update", "history")
	for _, want := range []string{"refused", "roll_back", "rolled_back", "committed", "the operator wants it"} {
		if !strings.Contains(history, want) {
			t.Errorf("the history has no %q: %s", want, history)
		}
	}
	if out := a.Must("journal", "--kind", "update"); !strings.Contains(out, "rolled_back") {
		t.Errorf("the journal has %s", out)
	}
}

// TestUpdateThatAsksForMoreWaits for the operator, over a restart of the agent.
func TestUpdateThatAsksForMoreWaits(t *testing.T) {
	a := rig.New(t, built, "")
	v := a.Vendor("engine")
	a.WriteConfig(v.Config("shadow = \"0s\"\nwatch = \"1s\"", "engine/code"))
	a.Start()
	t.Cleanup(a.Stop)
	a.Install(rig.Spec{Name: "engine", Questions: "exec"})
	v.Publish("engine/code", "1.1.0", a.Folder(rig.Spec{Name: "engine", Version: "1.1.0", Questions: "exec,open"}))
	s := reaches(a, "code", "1.1.0", "approve")
	if asks := strings.Join(s.GetUpdate().GetAsks(), " "); !strings.Contains(asks, "decide:open") {
		t.Errorf("it asks for %q", asks)
	}
	if h := a.Health("update.acme/engine/code"); h.GetStatus() != "degraded" || !strings.Contains(h.GetRemedy(), "bailey update apply") {
		t.Errorf("health says %v", h)
	}
	a.Stop()
	a.Start()
	reaches(a, "code", "1.1.0", "approve")
	a.Must("update", "apply", "acme/engine/code")
	reaches(a, "code", "1.1.0", "committed")
}
