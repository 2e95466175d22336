package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	controlv1 "bailey/api/control/v1"
	"bailey/test/rig"

	"google.golang.org/protobuf/encoding/protojson"
)

// vendor is who offers releases of the product engine, with a repository of its own.
type vendor struct {
	a   *rig.Agent
	dir string
}

// newVendor makes a repository with the two streams of acme's engine, by the very tool that vendors have.
func newVendor(a *rig.Agent) *vendor {
	a.T.Helper()
	v := &vendor{a: a, dir: filepath.Join(a.Dir, "vendor")}
	if err := errors.Join(os.Mkdir(v.dir, 0o755), os.WriteFile(v.path("pass"), []byte("a passphrase of the tests\n"), 0o600)); err != nil {
		a.T.Fatal(err)
	}
	v.fleet("init", "--dir", "repo", "--keys", "keys", "--root-keys", "1", "--root-threshold", "1", "--passphrase-file", "pass")
	v.fleet("keygen", "acme.key", "--passphrase-file", "pass")
	for _, kind := range []string{"code", "content"} {
		v.fleet("vendor", "add", "acme/engine/"+kind, "--public", "acme.key.pub", "--dir", "repo", "--keys", "keys", "--passphrase-file", "pass")
	}
	return v
}

func (v *vendor) path(name string) string { return filepath.Join(v.dir, name) }

func (v *vendor) fleet(args ...string) {
	v.a.T.Helper()
	cmd := exec.Command(filepath.Join(v.a.Built, "bailey-fleet"), append([]string{"repo"}, args...)...)
	cmd.Dir = v.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		v.a.T.Fatalf("bailey-fleet repo %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// publish offers the files of a folder as a release.
func (v *vendor) publish(kind, version, folder string) {
	v.a.T.Helper()
	about, err := json.Marshal(map[string]any{
		"schema": 1, "vendor": "acme", "product": "engine", "kind": kind, "version": version, "epoch": 1, "platforms": []string{"linux/amd64"}, "urgency": "routine",
	})
	if err == nil {
		err = os.WriteFile(v.path("about.json"), about, 0o644)
	}
	if err != nil {
		v.a.T.Fatal(err)
	}
	file := kind + "-" + version + ".tar.zst"
	v.fleet("pack", folder, "--description", "about.json", "--out", file)
	v.fleet("publish", file, "--key", "acme.key", "--dir", "repo", "--keys", "keys", "--passphrase-file", "pass")
}

// content publishes a content.txt.
func (v *vendor) content(version, text string) {
	v.a.T.Helper()
	folder := v.path("content-" + version)
	if err := errors.Join(os.Mkdir(folder, 0o755), os.WriteFile(filepath.Join(folder, "content.txt"), []byte(text), 0o644)); err != nil {
		v.a.T.Fatal(err)
	}
	v.publish("content", version, folder)
}

func updateOf(a *rig.Agent, stream string) *controlv1.UpdateStream {
	a.T.Helper()
	s := &controlv1.UpdateStream{}
	if err := protojson.Unmarshal([]byte(a.Must("update", "show", stream, "--json")), s); err != nil {
		a.T.Fatal(err)
	}
	return s
}

// reaches waits until a version is in a state and returns the stream.
func reaches(a *rig.Agent, stream, version, state string) (s *controlv1.UpdateStream) {
	a.T.Helper()
	a.Must("update", "check")
	a.Eventually(fmt.Sprintf("%s %s is %s", stream, version, state), 60*time.Second, func() error {
		s = updateOf(a, stream)
		if u := s.GetUpdate(); u.GetVersion() != version || u.GetState() != state {
			return fmt.Errorf("%s is %s: %s; %s %s", u.GetVersion(), u.GetState(), u.GetReason(), s.GetWaiting(), s.GetProblem())
		}
		return nil
	})
	return s
}

// TestUpdates: releases come in from a repository by themselves. What is broken dies in its rehearsal while the installed release answers
// every question; what slipped past it is taken back; and what is good stays.
func TestUpdates(t *testing.T) {
	a := rig.New(t, built, "")
	v := newVendor(a)
	a.WriteConfig(fmt.Sprintf("[update]\nmirrors = [%q]\nroot = %q\nstreams = [\"acme/engine/code\", \"acme/engine/content\"]\ninterval = \"1h\"\nwatch = \"2s\"\n",
		"file://"+v.path("repo"), v.path("keys/root.json")))
	a.Start()
	t.Cleanup(a.Stop)
	const content, code = "acme/engine/content", "acme/engine/code"
	a.Install(engine("1.0.0", goodContent, nil))
	evil := a.Program("evil")
	programs, _ := lived(a, "engine")

	v.content("2026.11.26.1", goodContent+"prefix "+evil+"\n")
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
	v.content("2026.11.26.2", badContent)
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
	a.Must("update", "apply", content, "--force")
	a.Eventually("it is tried and taken back", 60*time.Second, func() error {
		_ = execs(programs[1]) // somebody asks
		if u := updateOf(a, content).GetUpdate(); u.GetState() != "rolled_back" {
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
	v.publish("code", "1.1.0", a.Folder(spec))
	reaches(a, code, "1.1.0", "committed")
	if p := a.Product("engine"); !strings.HasPrefix(p.GetRelease(), "1.1.0-") {
		t.Errorf("in force is %v", p)
	}
	if err := execs(evil); !denied(err) {
		t.Errorf("what the content denies: %v", err)
	}

	// And the operator takes it back.
	a.Must("update", "rollback", code)
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
	v := newVendor(a)
	a.WriteConfig(fmt.Sprintf("[update]\nmirrors = [%q]\nroot = %q\nstreams = [\"acme/engine/code\"]\ninterval = \"1h\"\nwatch = \"1s\"\n", "file://"+v.path("repo"), v.path("keys/root.json")))
	a.Start()
	t.Cleanup(a.Stop)
	a.Install(rig.Spec{Name: "engine", Questions: "exec"})
	v.publish("code", "1.1.0", a.Folder(rig.Spec{Name: "engine", Version: "1.1.0", Questions: "exec,open"}))
	s := reaches(a, "acme/engine/code", "1.1.0", "approve")
	if asks := strings.Join(s.GetUpdate().GetAsks(), " "); !strings.Contains(asks, "decide:open") {
		t.Errorf("it asks for %q", asks)
	}
	if h := a.Health("update.acme/engine/code"); h.GetStatus() != "degraded" || !strings.Contains(h.GetRemedy(), "bailey update apply") {
		t.Errorf("health says %v", h)
	}
	a.Stop()
	a.Start()
	reaches(a, "acme/engine/code", "1.1.0", "approve")
	a.Must("update", "apply", "acme/engine/code")
	reaches(a, "acme/engine/code", "1.1.0", "committed")
}
