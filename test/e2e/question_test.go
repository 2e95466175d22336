package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	productv1 "bailey/api/product/v1"
	"bailey/test/rig"
)

// execs runs a program and returns what exec said.
func execs(path string) error { return exec.Command(path).Run() }

func denied(err error) bool { return errors.Is(err, syscall.EPERM) }

// refusal is nil when err is a refusal, and says what happened instead otherwise.
func refusal(err error) error {
	switch {
	case denied(err):
		return nil
	case err == nil:
		return errors.New("it was allowed")
	}
	return fmt.Errorf("it failed otherwise than with EPERM: %w", err)
}

func verdictFor(path string) func(*productv1.Event) bool {
	return func(e *productv1.Event) bool { return e.GetVerdict().GetFile().GetPath() == path }
}

func TestDenyByEitherProductIsEPERM(t *testing.T) {
	a := startAgent(t, "")
	good, badA, badB := a.Program("good"), a.Program("bad-a"), a.Program("bad-b")
	a.Install(rig.Spec{Name: "first", Questions: "exec", Settings: map[string]string{"deny_path": badA}})
	a.Install(rig.Spec{Name: "second", Questions: "exec", Settings: map[string]string{"deny_path": badB}})

	events := exec.Command(filepath.Join(built, "bailey"), "events", "verdict", "--json", "--for", "6s")
	events.Env = append(os.Environ(), "BAILEY_RUN="+a.Run)
	var lines rig.Buffer
	events.Stdout, events.Stderr = &lines, os.Stderr
	if err := events.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // the command line's tap is there when it is there; the asserts below find out

	if err := execs(good); err != nil {
		t.Errorf("a program that both allow: %v", err)
	}
	for _, bad := range []string{badA, badB} {
		if err := execs(bad); !denied(err) {
			t.Errorf("exec of %s = %v, want EPERM", bad, err)
		}
	}
	if err := events.Wait(); err != nil {
		t.Fatal(err)
	}

	answers := map[string]map[string]bool{} // path → product → allow
	for line := range strings.Lines(lines.String()) {
		var e struct {
			Verdict struct {
				File    struct{ Path string }
				Allow   bool
				Answers []struct {
					Product string
					Allow   bool
				}
			}
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		of := map[string]bool{}
		for _, p := range e.Verdict.Answers {
			of[p.Product] = p.Allow
		}
		answers[e.Verdict.File.Path] = of
		if want := e.Verdict.File.Path == good; e.Verdict.Allow != want {
			t.Errorf("verdict for %s: allow %v", e.Verdict.File.Path, e.Verdict.Allow)
		}
	}
	for _, path := range []string{good, badA, badB} {
		of := answers[path]
		if _, ok := of["first"]; !ok {
			t.Errorf("%s: no answer of first in %v", path, of)
		}
		if _, ok := of["second"]; !ok {
			t.Errorf("%s: no answer of second in %v", path, of)
		}
	}
	if answers[badA]["first"] || answers[badB]["second"] {
		t.Errorf("the deny is not in the recorded answers: %v", answers)
	}
}

func TestProductsAreAskedInParallel(t *testing.T) {
	a := startAgent(t, "[questions]\nexec_deadline = \"2s\"\ncritical_deadline = \"1s\"\n")
	const delay = 300 * time.Millisecond
	for _, name := range []string{"one", "two", "three"} {
		a.Install(rig.Spec{Name: name, Questions: "exec", Settings: map[string]string{"delay": delay.String()}})
	}
	p := a.Program("waits")
	start := time.Now()
	if err := execs(p); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < delay || took > 2*delay {
		t.Errorf("three products that need %s each took %s, want one delay and not their sum", delay, took)
	}
}

func TestDescriptorReadsWhatTheProductCannotOpen(t *testing.T) {
	a := startAgent(t, "")
	secret := filepath.Join(a.Scratch, "secret")
	const content = "only root may read this"
	if err := os.WriteFile(secret, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	a.Install(rig.Spec{Name: "reader", Questions: "open", Settings: map[string]string{"read": "true"}})
	events := a.Tap("finding")
	if _, err := os.ReadFile(secret); err != nil {
		t.Fatal(err)
	}
	e := a.Find(events, "finding of the content", func(e *productv1.Event) bool { return e.GetFinding().GetRule() == "read" })
	if got := e.GetFinding().GetFields()["content"]; got != content {
		t.Errorf("the product read %q through the descriptor, want %q", got, content)
	}
	if got := e.GetFinding().GetFields()["open_by_path"]; got == "<nil>" {
		t.Error("the product could open a root-only file by its path")
	}
}

func TestLateProductGetsTheDefault(t *testing.T) {
	a := startAgent(t, "[questions]\nexec_deadline = \"300ms\"\n")
	a.Install(rig.Spec{Name: "never", Questions: "exec", Settings: map[string]string{"hang": "true", "only": a.Scratch + "/slow"}})
	verdicts := a.Tap("verdict")
	p := a.Program("slow")
	start := time.Now()
	if err := execs(p); err != nil {
		t.Fatalf("the default is allow: %v", err)
	}
	took := time.Since(start)
	if took < 200*time.Millisecond || took > 400*time.Millisecond {
		t.Errorf("answered after %s, want 80 %% to 100 %% of 300 ms", took)
	}
	e := a.Find(verdicts, "verdict", verdictFor(p))
	if got := e.GetVerdict().GetReason(); got != "default" {
		t.Errorf("reason %q, want default", got)
	}
	if e.GetVerdict().GetCached() {
		t.Error("a default was cached")
	}
}

func TestOnMissDeny(t *testing.T) {
	a := startAgent(t, "[questions]\nexec_deadline = \"300ms\"\n")
	a.Install(rig.Spec{Name: "strict", Questions: "exec", Request: "on_miss = \"deny\"\n",
		Settings: map[string]string{"hang": "true", "only": a.Scratch + "/slow"}})
	if err := execs(a.Program("slow")); !denied(err) {
		t.Errorf("a miss with on_miss = deny gave %v, want EPERM", err)
	}
}

func TestShadowProductIsAskedAndDoesNotCount(t *testing.T) {
	a := startAgent(t, "")
	a.Install(rig.Spec{Name: "ghost", Questions: "exec", Request: "authority = \"shadow\"\n", Settings: map[string]string{"answer": "deny"}})
	verdicts := a.Tap("verdict")
	p := a.Program("anything")
	if err := execs(p); err != nil {
		t.Fatalf("a shadow product's deny counted: %v", err)
	}
	e := a.Find(verdicts, "verdict", verdictFor(p))
	if n := len(e.GetVerdict().GetAnswers()); n != 1 || !e.GetVerdict().GetAnswers()[0].GetShadow() || e.GetVerdict().GetAnswers()[0].GetAllow() {
		t.Errorf("the shadow deny is not recorded: %v", e.GetVerdict())
	}
}

func TestKilledProductChangesNothingButItsRestarts(t *testing.T) {
	a := startAgent(t, "")
	a.Install(rig.Spec{Name: "mortal", Questions: "exec"})
	p := a.Program("works")
	before := a.Product("mortal")
	if err := syscall.Kill(int(before.GetPid()), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := execs(p); err != nil {
		t.Errorf("exec while the product is dead: %v", err)
	}
	a.Eventually("the product is back", 10*time.Second, func() error {
		now := a.Product("mortal")
		if now.GetState() != "running" || now.GetPid() == before.GetPid() {
			return fmt.Errorf("state %s, pid %d", now.GetState(), now.GetPid())
		}
		if now.GetRestarts() != before.GetRestarts()+1 {
			return fmt.Errorf("%d restarts", now.GetRestarts())
		}
		return nil
	})
}

func TestContainerLikeProcessIsAsked(t *testing.T) {
	a := startAgent(t, "")
	lower := filepath.Join(a.Scratch, "lower")
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(a.Scratch, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(lower, "denied"), rig.TinyProgram("denied"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(lower, "allowed"), rig.TinyProgram("allowed"), 0o755); err != nil {
		t.Fatal(err)
	}
	a.Install(rig.Spec{Name: "judge", Questions: "exec", Settings: map[string]string{"deny_content": "denied"}})
	// A mount namespace of its own, an overlay as the root's part, and time for the agent to see the new mount.
	const script = `set -e
mount -t overlay overlay -o lowerdir="$1/lower,upperdir=$1/upper,workdir=$1/work" "$1/merged" 2>/dev/null ||
mount -t overlay overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" "$1/merged"
sleep 2
chroot "$1/merged" /allowed && echo allowed-ran
chroot "$1/merged" /denied && echo denied-ran || true`
	cmd := exec.Command("unshare", "-m", "sh", "-c", script, "sh", a.Scratch)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if s := out.String(); !strings.Contains(s, "allowed-ran") || strings.Contains(s, "denied-ran") {
		t.Errorf("in the container: %s", s)
	}
}
