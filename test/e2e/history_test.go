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

	"bailey/test/rig"
)

// history runs bailey history on the agent's state and returns its lines.
func history(a *rig.Agent, args ...string) []string {
	a.T.Helper()
	out := strings.TrimSpace(a.Must(append([]string{"history", "--state", a.State}, args...)...))
	return strings.Split(out, "\n")
}

// TestHistoryOutlivesTheAgent: what was asked and decided, and who started what, can be read when the agent was killed, and
// goes on when it is started again.
func TestHistoryOutlivesTheAgent(t *testing.T) {
	a := startAgent(t, "")
	a.Install(rig.Spec{Name: "judge", Questions: "exec"})
	first := a.Program("first")
	run := exec.Command(first, "--first")
	if err := run.Run(); err != nil {
		t.Fatal(err)
	}
	a.Eventually("the exec is on disk", 10*time.Second, func() error {
		if !strings.Contains(strings.Join(history(a), "\n"), "first --first") {
			return errors.New("not yet")
		}
		return nil
	})
	a.Kill()
	lines := history(a, "--json", "--process", fmt.Sprint(run.Process.Pid))
	kinds := map[string]bool{}
	for _, l := range lines {
		var e struct {
			Kind    string
			Verdict struct {
				Allow   bool
				File    struct{ Path string }
				Answers []struct{ Product, Outcome string }
			}
		}
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Fatalf("%v in %q", err, l)
		}
		kinds[e.Kind] = true
		if e.Kind == "verdict" && (!e.Verdict.Allow || e.Verdict.File.Path != first || len(e.Verdict.Answers) != 1 || e.Verdict.Answers[0].Product != "judge") {
			t.Errorf("the question with its answer is %s", l)
		}
	}
	for _, k := range []string{"exec", "verdict"} {
		if !kinds[k] {
			t.Errorf("the history of the process has no %s:\n%s", k, strings.Join(lines, "\n"))
		}
	}
	a.Start()
	a.Eventually("the product is asked again", 10*time.Second, func() error {
		if p := a.Product("judge"); p.GetAuthority() != "live" {
			return errors.New(p.GetAuthority())
		}
		return nil
	})
	if err := exec.Command(a.Program("second"), "--second").Run(); err != nil {
		t.Fatal(err)
	}
	a.Stop()
	all := strings.Join(history(a), "\n")
	before, after, found := strings.Cut(all, "second --second")
	if !found || !strings.Contains(before, "first --first") || strings.Count(before, "the agent started") != 2 || !strings.Contains(after, "the agent ended as it was told to") {
		t.Errorf("the history is not that of a kill and a start:\n%s", all)
	}
}

// TestRecordingCountsAsNobody: while nobody is subscribed, recording makes no sensor work.
func TestRecordingCountsAsNobody(t *testing.T) {
	a := startAgent(t, "")
	p := a.Program("alone")
	before := counter(a, "process", "emitted.execs")
	for range 20 {
		if err := exec.Command(p).Run(); err != nil {
			t.Fatal(err)
		}
	}
	if n := counter(a, "process", "emitted.execs") - before; n != 0 {
		t.Errorf("%d execs were told though nobody listens", n)
	}
	if counter(a, "recorder", "bound") != 64<<20 {
		t.Error("the recorder is not in the status")
	}
}

func counter(a *rig.Agent, sensor, name string) uint64 {
	a.T.Helper()
	for _, s := range a.Status().GetSensors() {
		if s.GetName() == sensor {
			return s.GetCounters()[name]
		}
	}
	return 0
}

// TestDamagedHistoryStartsAnyway: rubbish where the recorder keeps its segments costs the rubbish.
func TestDamagedHistoryStartsAnyway(t *testing.T) {
	a := startAgent(t, "")
	a.Stop()
	path := filepath.Join(a.State, "recorder", "00000000000000000001.segment")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole[len(whole)-1] ^= 0x40
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	a.Start()
	a.Eventually("the damage is named", 10*time.Second, func() error {
		for _, e := range a.Status().GetHealth() {
			if e.GetComponent() == "recorder" && e.GetStatus() == "degraded" && strings.Contains(e.GetSummary(), "00000000000000000001.segment") && e.GetRemedy() != "" {
				return nil
			}
		}
		return errors.New("no such health entry")
	})
	a.Install(rig.Spec{Name: "judge", Questions: "exec"})
	if err := exec.Command(a.Program("works")).Run(); err != nil {
		t.Error(err)
	}
}
