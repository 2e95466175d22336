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

	"bailey/test/rig"
)

// journalLine is one line of `bailey journal show --json`.
type journalLine struct {
	Seq    uint64
	Kind   string
	Fields struct {
		Method, Phase, State, Product, Authority, Err string
		Action                                        uint64
		By                                            json.RawMessage
		Request                                       struct{ Name string }
		Grants, Added, Removed, Products, Overridden  []string
		File                                          struct{ Path string }
	}
}

func journal(a *rig.Agent, args ...string) []journalLine {
	a.T.Helper()
	var out []journalLine
	text := a.Must(append([]string{"journal", "show", "--json", "--state", a.State}, args...)...)
	for line := range strings.Lines(text) {
		var l journalLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			a.T.Fatalf("%v in %s", err, line)
		}
		out = append(out, l)
	}
	return out
}

// expect waits until the journal has lines that match each of the conditions, in this order.
func expectJournal(a *rig.Agent, what string, conditions ...func(journalLine) bool) {
	a.T.Helper()
	a.Eventually(what, 20*time.Second, func() error {
		all, next := journal(a), 0
		for _, l := range all {
			if next < len(conditions) && conditions[next](l) {
				next++
			}
		}
		if next < len(conditions) {
			return fmt.Errorf("line %d of those awaited is not there; the journal has %+v", next+1, all)
		}
		return nil
	})
}

func operatorLine(method, phase string) func(journalLine) bool {
	return func(l journalLine) bool {
		return l.Kind == "operator" && l.Fields.Method == method && l.Fields.Phase == phase
	}
}

func kindOf(kind, product string) func(journalLine) bool {
	return func(l journalLine) bool { return l.Kind == kind && l.Fields.Product == product }
}

// TestJournalHasWhatAnAuditorAsksFor follows one product from its installation to its removal.
func TestJournalHasWhatAnAuditorAsksFor(t *testing.T) {
	a := startAgent(t, "")
	good, bad := a.Program("good"), a.Program("bad")
	a.Install(rig.Spec{Name: "guard", Questions: "exec", Settings: map[string]string{"deny_path": bad}})
	// Recorded when the reply is there: no waiting.
	all := journal(a)
	if last := all[len(all)-1]; !anyLine(all, kindOf("install", "guard")) || !anyLine(all, kindOf("grant", "guard")) || !anyLine(all, operatorLine("ProductInstall", "done")) {
		t.Errorf("after the installation's reply the journal ends with %+v", last)
	}
	if err := execs(bad); !denied(err) {
		t.Fatalf("exec of %s = %v, want EPERM", bad, err)
	}
	if err := execs(good); err != nil {
		t.Fatal(err)
	}
	a.Must("product", "revoke", "guard", "deny")
	a.Eventually("the deny does not count", 20*time.Second, func() error { return execs(bad) })
	if _, err := a.Bailey("product", "start", "nobody"); err == nil {
		t.Error("a product that is not there started")
	}
	a.Must("product", "remove", "guard")
	expectJournal(a, "its life in the journal",
		func(l journalLine) bool { return l.Kind == "segment" && l.Seq == 1 },
		func(l journalLine) bool { return l.Kind == "agent" && l.Fields.State == "started" },
		operatorLine("ProductInstall", "asked"),
		kindOf("install", "guard"),
		func(l journalLine) bool {
			return kindOf("grant", "guard")(l) && strings.Contains(strings.Join(l.Fields.Grants, " "), "deny")
		},
		operatorLine("ProductInstall", "done"),
		func(l journalLine) bool {
			return l.Kind == "deny" && l.Fields.File.Path == bad && l.Fields.Products[0] == "guard"
		},
		operatorLine("ProductRevoke", "asked"),
		func(l journalLine) bool {
			return kindOf("grant", "guard")(l) && len(l.Fields.Removed) == 1 && l.Fields.Removed[0] == "deny"
		},
		operatorLine("ProductRevoke", "done"),
		func(l journalLine) bool {
			return l.Kind == "overridden" && l.Fields.File.Path == bad && l.Fields.Overridden[0] == "guard"
		},
		operatorLine("ProductStart", "asked"),
		operatorLine("ProductStart", "refused"),
		operatorLine("ProductRemove", "asked"),
		kindOf("remove", "guard"),
		operatorLine("ProductRemove", "done"),
	)
	expectJournal(a, "the product's states",
		func(l journalLine) bool {
			return kindOf("product", "guard")(l) && l.Fields.State == "running" && l.Fields.Authority == "live"
		},
	)
	for _, l := range journal(a, "--kind", "deny") {
		if l.Fields.File.Path == good {
			t.Error("an allow is written down as a deny")
		}
	}
	head := strings.Fields(a.Must("journal", "head"))[1]
	a.Must("journal", "verify")
	a.Stop()
	a.Start()
	a.Must("journal", "verify", "--head", head)
	expectJournal(a, "the restart",
		func(l journalLine) bool { return l.Kind == "agent" && l.Fields.State == "stopped" },
		func(l journalLine) bool { return l.Kind == "agent" && l.Fields.State == "started" },
	)
}

func anyLine(all []journalLine, is func(journalLine) bool) bool {
	for _, l := range all {
		if is(l) {
			return true
		}
	}
	return false
}

// TestJournalOutlivesAKilledAgent: what was replied to is there, and the next agent goes on.
func TestJournalOutlivesAKilledAgent(t *testing.T) {
	a := startAgent(t, "")
	for range 5 {
		a.Must("cache", "clear")
		head := a.Status().GetJournal().GetHead()
		a.Kill()
		a.Start()
		a.Must("journal", "verify", "--head", head)
	}
	n := 0
	for _, l := range journal(a, "--kind", "operator") {
		if operatorLine("CacheClear", "done")(l) {
			n++
		}
	}
	if n != 5 {
		t.Errorf("%d of 5 actions are in the journal", n)
	}
}

// TestJournalThatCannotBeWritten: the agent starts, decides and obeys, and says what is wrong.
func TestJournalThatCannotBeWritten(t *testing.T) {
	a := startAgent(t, "")
	a.Stop()
	dir := filepath.Join(a.State, "journal")
	if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, []byte("in the way"), 0o600)); err != nil {
		t.Fatal(err)
	}
	a.Start()
	bad := a.Program("bad")
	a.Install(rig.Spec{Name: "guard", Questions: "exec", Settings: map[string]string{"deny_path": bad}})
	if err := execs(bad); !denied(err) {
		t.Errorf("exec of %s = %v, want EPERM", bad, err)
	}
	failing := func() bool {
		for _, e := range a.Status().GetHealth() {
			if e.GetComponent() == "journal" && e.GetStatus() == "failed" && e.GetRemedy() != "" {
				return true
			}
		}
		return false
	}
	if !failing() || !a.Status().GetJournal().GetFailing() {
		t.Errorf("health says %v", a.Status().GetHealth())
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	a.Eventually("the journal goes on by itself", 20*time.Second, func() error {
		if failing() {
			return errors.New("still failing")
		}
		return nil
	})
	a.Must("journal", "verify")
	if !anyLine(journal(a), kindOf("install", "guard")) {
		t.Error("what waited in memory is not there")
	}
}
