package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	productv1 "bailey/api/product/v1"
	"bailey/internal/roottest"
	"bailey/test/rig"
)

// ruled is one rule as `bailey rules --json` lists it.
type ruled struct {
	Product, ID, Action, Match string
	Enforced                   bool
}

func listRules(a *rig.Agent) map[string]ruled {
	a.T.Helper()
	var list struct{ Rules []ruled }
	if err := json.Unmarshal([]byte(a.Must("rules", "--json")), &list); err != nil {
		a.T.Fatal(err)
	}
	out := map[string]ruled{}
	for _, r := range list.Rules {
		out[r.ID] = r
	}
	return out
}

func ruleReply(id, class string) func(*productv1.Event) bool {
	return func(e *productv1.Event) bool {
		f := e.GetFinding()
		return f.GetRule() == "rule_reply" && f.GetFields()["id"] == id && f.GetFields()["error"] == class
	}
}

func removal(path string) error {
	err := os.Remove(path)
	if err == nil {
		err = os.WriteFile(path, nil, 0o644)
	}
	return err
}

// TestRulesHoldAlone: product, agent and keeper are killed. The rules hold, one ends with its lease, the next agent takes the rest over,
// and without the grant they are gone.
func TestRulesHoldAlone(t *testing.T) {
	roottest.RequireVM(t, "needs BPF LSM")
	a := startAgent(t, keeperConfig)
	bad, kept, short := a.Program("bad"), a.File("kept/file", "x", 0o644), a.File("short", "x", 0o644)
	findings := a.Tap("finding")
	a.Install(rig.Spec{
		Name: "ruler", Request: `rules = ["exec", "unlink_rename"]`,
		Settings: map[string]string{"rules": strings.Join([]string{
			"bad exec 1h file=" + bad, "kept unlink_rename 1h below=" + filepath.Dir(kept), "short unlink_rename 40s file=" + short,
			"shell exec 1h file=/proc/self/exe", "write open_write 1h file=" + kept, "long exec 999h file=" + bad, "none exec 1h file=/none",
		}, ";")},
	})
	begin := time.Now()
	for id, class := range map[string]string{"bad": "", "kept": "", "short": "", "write": "not_granted", "long": "invalid", "none": "not_found"} {
		a.Find(findings, fmt.Sprintf("the reply for %s: %q", id, class), ruleReply(id, class))
	}
	holds := func(when string) {
		t.Helper()
		if err := refusal(execs(bad)); err != nil {
			t.Errorf("%s: exec: %v", when, err)
		}
		if err := refusal(removal(kept)); err != nil {
			t.Errorf("%s: removal: %v", when, err)
		}
	}
	holds("with all of them")
	if err := refusal(removal(short)); err != nil {
		t.Errorf("within the lease: %v", err)
	}
	a.Find(findings, "that an exec was refused", func(e *productv1.Event) bool {
		f := e.GetFinding()
		return f.GetProduct() == "ruler" && f.GetRule() == "bad" && f.GetAction() == "denied" && f.GetFile().GetPath() == bad && e.GetProcess().GetKey().GetPid() != 0
	})
	if list := listRules(a); len(list) != 3 || !list["bad"].Enforced || list["bad"].Action != "exec" || !strings.Contains(list["bad"].Match, bad) {
		t.Errorf("listed are %+v", list)
	}

	pid := int(a.Product("ruler").GetPid())
	a.Kill()
	_ = syscall.Kill(pid, syscall.SIGKILL)
	holds("when all of them are dead")
	for removal(short) != nil && time.Since(begin) < 2*time.Minute {
		time.Sleep(100 * time.Millisecond)
	}
	if err := removal(short); err != nil {
		t.Errorf("after the lease: %v", err)
	}
	holds("when another's lease ended")

	// The product is not started: nobody installs anything anew.
	a.Start()
	holds("with the next agent")
	a.Must("product", "stop", "ruler")
	if err := execs(bad); err != nil {
		t.Errorf("when the operator stopped the product: %v", err)
	}
	a.Must("product", "start", "ruler")
	a.Eventually("the rules are back", 20*time.Second, func() error { return refusal(execs(bad)) })
	a.Must("product", "revoke", "ruler", "rule:exec")
	if err := execs(bad); err != nil {
		t.Errorf("without the grant: %v", err)
	}
	for _, want := range []string{"what=adopted", "what=expired", "what=removed", "what=refused"} {
		a.Eventually("the journal says "+want, 10*time.Second, func() error {
			if out := a.Must("journal", "--state", a.State, "--kind", "rule"); !strings.Contains(out, want) {
				return fmt.Errorf("it says %s", out)
			}
			return nil
		})
	}
	a.Stop()
	if left, _ := filepath.Glob("/sys/fs/bpf/bailey-*-rules"); len(left) > 0 {
		t.Errorf("left in the kernel: %v", left)
	}
}

// TestRulesWhereTheKernelCannot: the product hears why, the operator hears what to do, and nothing else is different.
func TestRulesWhereTheKernelCannot(t *testing.T) {
	if roottest.InVM() {
		t.Skip("the kernel of `make vm` can: TestRulesHoldAlone")
	}
	a := startAgent(t, "")
	bad := a.Program("bad")
	findings := a.Tap("finding")
	a.Install(rig.Spec{
		Name: "ruler", Request: `rules = ["exec"]`,
		Settings: map[string]string{"rules": "bad exec 1h file=" + bad + "; write open_write 1h file=" + bad + "; short exec 1ms file=" + bad},
	})
	if e := a.Health("rules"); e.GetStatus() == "ok" {
		t.Skip("this kernel can: TestRulesHoldAlone")
	} else if e.GetStatus() != "degraded" || e.GetRemedy() == "" {
		t.Errorf("health says %v", e)
	}
	for id, class := range map[string]string{"bad": "unsupported", "write": "not_granted", "short": "invalid"} {
		a.Find(findings, fmt.Sprintf("the reply for %s: %q", id, class), ruleReply(id, class))
	}
	if err := execs(bad); err != nil {
		t.Error(err)
	}
	if list := listRules(a); len(list) != 0 {
		t.Errorf("listed are %+v", list)
	}
	a.Eventually("the journal says that rules were refused", 10*time.Second, func() error {
		if out := a.Must("journal", "--state", a.State, "--kind", "rule"); strings.Count(out, "what=refused") != 3 {
			return fmt.Errorf("it says %s", out)
		}
		return nil
	})
	if p := a.Product("ruler"); p.GetCounters().GetFaults() != 0 || p.GetRestarts() != 0 {
		t.Errorf("a refusal is a fault: %v", p)
	}
}
