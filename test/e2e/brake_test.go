package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	controlv1 "bailey/api/control/v1"
	productv1 "bailey/api/product/v1"
	"bailey/test/rig"
)

// programs puts n programs below a directory of the scratch filesystem.
func programs(a *rig.Agent, dir string, n int) []string {
	var out []string
	for i := range n {
		out = append(out, a.Program(fmt.Sprintf("%s/p%d", dir, i)))
	}
	return out
}

// refusals runs each program once and returns how many were refused. Any other failure fails the test.
func refusals(t *testing.T, paths []string) (n int) {
	t.Helper()
	for _, p := range paths {
		switch err := execs(p); {
		case denied(err):
			n++
		case err != nil:
			t.Errorf("exec of %s: %v", p, err)
		}
	}
	return n
}

// braked returns what the command line lists of a product, nil if it is not braked.
func braked(a *rig.Agent, name string) *controlv1.BrakedProduct {
	a.T.Helper()
	var list struct {
		Braked []struct {
			Product, Release, Rule, Reason, Denies string
			Files                                  []string
		}
	}
	if err := json.Unmarshal([]byte(a.Must("brake", "list", "--json")), &list); err != nil {
		a.T.Fatal(err)
	}
	for _, b := range list.Braked {
		if b.Product == name {
			return &controlv1.BrakedProduct{Product: b.Product, Release: b.Release, Rule: b.Rule, Reason: b.Reason, Files: b.Files}
		}
	}
	return nil
}

// untilBraked waits until an operator is told in all ways that a product is braked.
func untilBraked(a *rig.Agent, name, rule string) {
	a.T.Helper()
	a.Eventually(name+" is braked", 10*time.Second, func() error {
		b, p, h := braked(a, name), a.Product(name), a.Health("product."+name+".brake")
		switch {
		case b == nil || b.GetRule() != rule:
			return fmt.Errorf("the list says %v", b)
		case p.GetAuthority() != "braked" || p.GetAuthorityReason() != b.GetReason() || p.GetAuthoritySince() == 0:
			return fmt.Errorf("status says %s since %d: %s", p.GetAuthority(), p.GetAuthoritySince(), p.GetAuthorityReason())
		case h.GetStatus() != "degraded" || !strings.Contains(h.GetRemedy(), "bailey brake release "+name):
			return fmt.Errorf("health says %v", h)
		}
		return nil
	})
}

func isProduct(name, authority string) func(*productv1.Event) bool {
	return func(e *productv1.Event) bool {
		return e.GetProduct().GetProduct() == name && e.GetProduct().GetAuthority() == authority
	}
}

func TestProductThatDeniesEverythingIsBraked(t *testing.T) {
	a := startAgent(t, "")
	list := programs(a, "all", 60)
	a.Install(rig.Spec{Name: "mad", Questions: "exec", Settings: map[string]string{"answer": "deny", "cache": "true", "only": a.Scratch + "/all"}})
	findings, verdicts, states := a.Tap("finding"), a.Tap("verdict"), a.Tap("product")

	start := time.Now()
	if n := refusals(t, list); n != 20 {
		t.Errorf("%d of 60 programs were refused, want the limit of 20", n)
	}
	if n := refusals(t, list); n != 0 {
		t.Errorf("%d programs are refused by a braked product", n)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the machine was unusable for %s", took)
	}
	untilBraked(a, "mad", "files")
	a.Find(states, "that it is braked", isProduct("mad", "braked"))
	if b := braked(a, "mad"); len(b.GetFiles()) != 10 || b.GetFiles()[0] != list[0] || b.GetRelease() != a.Product("mad").GetRelease() {
		t.Errorf("the record says %v", b)
	}

	// Each deny that did not count is a finding and an overridden answer of a verdict; it is asked on.
	const overridden = 40 + 60
	a.Eventually("findings for all denies", 10*time.Second, func() error {
		n := 0
		for _, e := range findings.All() {
			f := e.GetFinding()
			if f.GetRule() != "bailey.brake" {
				continue
			}
			n++
			if f.GetProduct() != "mad" || f.GetAction() != "would_deny" || f.GetQuestionId() == 0 || f.GetTarget().GetPid() == 0 ||
				!strings.HasPrefix(f.GetFile().GetPath(), a.Scratch+"/all/") || !strings.HasPrefix(f.GetFields()["release"], "1.0.0-") {
				t.Fatalf("finding %v", f)
			}
		}
		if n != overridden {
			return fmt.Errorf("%d findings", n)
		}
		return nil
	})
	last := list[len(list)-1]
	e := a.Find(verdicts, "verdict on a braked deny", func(e *productv1.Event) bool {
		return e.GetVerdict().GetFile().GetPath() == last && e.GetVerdict().GetAllow()
	})
	if answers := e.GetVerdict().GetAnswers(); len(answers) != 1 || answers[0].GetOutcome() != "overridden" || answers[0].GetShadow() {
		t.Errorf("answers %v", answers)
	}
	if c := a.Product("mad").GetCounters(); c.GetBraked() != overridden || c.GetOverridden() != overridden {
		t.Errorf("counted %d braked, %d overridden, want %d", c.GetBraked(), c.GetOverridden(), overridden)
	}

	// Neither a new start of the product nor one of the agent, by whatever end, releases it.
	a.Must("product", "restart", "mad")
	untilBraked(a, "mad", "files")
	if n := refusals(t, list); n != 0 {
		t.Errorf("%d programs are refused after a restart of the product", n)
	}
	a.Kill()
	a.Start()
	a.Running("mad")
	untilBraked(a, "mad", "files")
	if n := refusals(t, list); n != 0 {
		t.Errorf("%d programs are refused after a restart of the agent", n)
	}

	states = a.Tap("product")
	if out := a.Must("brake", "release", "mad"); !strings.Contains(out, "authority live") {
		t.Errorf("released: %q", out)
	}
	a.Find(states, "that it is live", isProduct("mad", "live"))
	if err := refusal(execs(list[0])); err != nil {
		t.Errorf("a released product: %v", err)
	}
	if braked(a, "mad") != nil || a.Health("product.mad.brake").GetStatus() != "ok" {
		t.Error("it is still said to be braked")
	}
	if out, err := a.Bailey("brake", "release", "mad"); err == nil || !strings.Contains(out, "is not braked") {
		t.Errorf("released twice: %v, %s", err, out)
	}
	if n := refusals(t, list); n != 20 {
		t.Errorf("after the release %d programs were refused, want 20 again", n)
	}
	untilBraked(a, "mad", "files")
	a.Must("product", "remove", "mad") // who removes it forgets it
	if out := a.Must("brake"); strings.Contains(out, "mad") {
		t.Errorf("a product that is gone is listed: %s", out)
	}
}

// A scanner that denies what it should deny, however often somebody tries.
func TestOneMalwareFileAThousandTimesIsNoReason(t *testing.T) {
	a := startAgent(t, "[questions]\nmax_in_flight = 1024\n")
	bad, good := a.Program("malware"), a.Program("good")
	for _, cache := range []string{"false", "true"} {
		name := "scanner-" + cache
		a.Install(rig.Spec{Name: name, Questions: "exec", Settings: map[string]string{"deny_path": bad, "cache": cache}})
		for i := range 1000 {
			if err := refusal(execs(bad)); err != nil {
				t.Fatalf("attempt %d: %v", i, err)
			}
		}
		time.Sleep(1500 * time.Millisecond) // the judge looks once a second
		if b := braked(a, name); b != nil {
			t.Errorf("braked: %v", b)
		}
		if err := execs(good); err != nil {
			t.Error(err)
		}
		a.Must("product", "remove", name)
	}
}

func TestLockdownThatDeniesFourUnknownScriptsIsNoReason(t *testing.T) {
	a := startAgent(t, "")
	locked := filepath.Join(a.Scratch, "locked")
	var scripts []string
	for i := range 4 {
		scripts = append(scripts, a.File(fmt.Sprintf("locked/script%d", i), fmt.Sprintf("#!/bin/sh\nexit %d\n", i), 0o755))
	}
	a.InstallShipped("allowlist", `lockdown_paths = ""`, fmt.Sprintf("lockdown_paths = %q", locked+"/**"))
	a.Eventually("the first script is refused", 20*time.Second, func() error { return refusal(execs(scripts[0])) })
	for range 50 {
		if n := refusals(t, scripts); n != len(scripts) {
			t.Fatalf("%d of %d unknown scripts were refused", n, len(scripts))
		}
	}
	time.Sleep(1500 * time.Millisecond)
	if b := braked(a, "allowlist"); b != nil {
		t.Errorf("braked: %v", b)
	}
	if err := refusal(execs(scripts[3])); err != nil {
		t.Errorf("the last script: %v", err)
	}
}

// The operator can let one product deny more than others.
func TestAGrantRaisesTheLimitOfOneProduct(t *testing.T) {
	a := startAgent(t, "[brake]\nfiles = 3\n")
	list := programs(a, "all", 40)
	a.Install(rig.Spec{Name: "strict", Questions: "exec", Settings: map[string]string{"answer": "deny", "only": a.Scratch + "/all"}})
	if n := refusals(t, list[:5]); n != 3 {
		t.Errorf("%d refused with a limit of 3 in the configuration", n)
	}
	untilBraked(a, "strict", "files")
	a.Must("product", "grant", "strict", "deny_files:1000")
	a.Running("strict")
	untilBraked(a, "strict", "files") // the operator said how much, not that all is well
	a.Must("brake", "release", "strict")
	if n := refusals(t, list); n != len(list) {
		t.Errorf("%d of %d refused with a limit of 1000", n, len(list))
	}
	if out := a.Must("product", "show", "strict"); !strings.Contains(out, "deny up to 1000 different files") {
		t.Errorf("the grant is not explained: %s", out)
	}
}

// Opens count like execs, and files of users like those of root.
func TestOpensOfUsersFilesCount(t *testing.T) {
	a := startAgent(t, "")
	var list []string
	for i := range 50 {
		p := a.File(fmt.Sprintf("home/document%d", i), "text", 0o644)
		if err := os.Chown(p, 1000+i, 1000); err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	a.Install(rig.Spec{Name: "mad", Questions: "open", Settings: map[string]string{"answer": "deny", "only": a.Scratch + "/home/"}})
	refused := 0
	for _, p := range list {
		f, err := os.Open(p)
		if err == nil {
			_ = f.Close()
			continue
		}
		if !denied(err) {
			t.Fatal(err)
		}
		refused++
	}
	if refused != 20 {
		t.Errorf("%d of 50 documents could not be opened, want the limit of 20", refused)
	}
	untilBraked(a, "mad", "files")
}

// A product condemns itself, another product and the files of the critical set: nothing of it counts, each is on record, and
// after three within a minute nothing else counts either.
func TestPlatformAndCriticalFilesAreNeverDenied(t *testing.T) {
	a := rig.New(t, built, "")
	a.State = filepath.Join(a.Scratch, "state")
	core := a.Program("core/sshd")
	a.WriteConfig(fmt.Sprintf("[critical]\nextra = [%q]\n[questions]\ncritical_deadline = \"400ms\"\n", filepath.Join(a.Scratch, "core")))
	a.Start()
	t.Cleanup(a.Stop)
	a.Eventually("the critical set is computed", time.Minute, func() error {
		for _, s := range a.Status().GetSensors() {
			if s.GetName() == "critical" && s.GetCounters()["files"] > 0 {
				return nil
			}
		}
		return errors.New("not yet")
	})
	other, plain := a.Program("other"), a.Program("plain")
	a.Install(rig.Spec{Name: "innocent", Questions: "exec"})
	a.Install(rig.Spec{Name: "shh", Questions: "exec", Settings: map[string]string{"answer": "deny", "only": a.Scratch}})
	findings := a.Tap("finding")
	binary := func(name string) string { return filepath.Join(a.Product(name).GetFolder(), "faulty") }
	if err := refusal(execs(plain)); err != nil {
		t.Fatalf("it denies nothing: %v", err)
	}
	victims := []string{core, binary("shh"), binary("innocent")}
	for i, p := range victims {
		if p2 := filepath.Clean(p); !strings.HasPrefix(p2, a.Scratch) {
			t.Fatalf("%s is not watched", p2)
		}
		if err := execs(p); denied(err) {
			t.Errorf("%s was denied", p)
		}
		f := a.Find(findings, "finding about "+p, func(e *productv1.Event) bool {
			return e.GetFinding().GetRule() == "bailey.critical_set" && e.GetFinding().GetFile().GetPath() == p
		}).GetFinding()
		if f.GetProduct() != "shh" || f.GetFields()["release"] != a.Product("shh").GetRelease() || f.GetAction() != "would_deny" {
			t.Errorf("finding %v", f)
		}
		if h := a.Health("product.shh.denies"); i < 2 && (h.GetStatus() != "degraded" || !strings.Contains(h.GetSummary(), p)) {
			t.Errorf("after %s health says %v", p, h)
		}
		if i == 1 {
			if err := refusal(execs(other)); err != nil {
				t.Errorf("after two critical denies: %v", err)
			}
		}
	}
	untilBraked(a, "shh", "critical")
	if err := execs(other); err != nil {
		t.Errorf("a braked product: %v", err)
	}
	if c := a.Product("shh").GetCounters(); c.GetCritical() != 3 {
		t.Errorf("%d overridden for the critical set", c.GetCritical())
	}
	if p := a.Product("innocent"); p.GetState() != "running" || p.GetAuthority() != "live" {
		t.Errorf("the other product: %s, %s", p.GetState(), p.GetAuthority())
	}
}

func TestCorruptBrakeFileIsNamedAndTheAgentStarts(t *testing.T) {
	a := startAgent(t, "[brake]\nfiles = 2\n")
	list := programs(a, "all", 10)
	a.Install(rig.Spec{Name: "mad", Questions: "exec", Settings: map[string]string{"answer": "deny", "only": a.Scratch + "/all"}})
	refusals(t, list)
	untilBraked(a, "mad", "files")
	a.Stop()
	file := filepath.Join(a.State, "brake.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text[:len(text)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	a.Start()
	a.Running("mad")
	if h := a.Health("brake.state"); h.GetStatus() != "degraded" || !strings.Contains(h.GetSummary(), file) || h.GetRemedy() == "" {
		t.Errorf("health says %v", h)
	}
	if _, err := os.Stat(file + ".bad"); errors.Is(err, os.ErrNotExist) {
		t.Error("the corrupt file was not kept")
	}
	if n := refusals(t, list); n != 2 {
		t.Errorf("%d refused, want 2: nobody is braked, and the brake works", n)
	}
	untilBraked(a, "mad", "files")
}
