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
	good, badA, badB := a.program("good"), a.program("bad-a"), a.program("bad-b")
	a.install(spec{name: "first", questions: "exec", settings: map[string]string{"deny_path": badA}})
	a.install(spec{name: "second", questions: "exec", settings: map[string]string{"deny_path": badB}})

	events := exec.Command(filepath.Join(built, "bailey"), "events", "verdict", "--json", "--for", "6s")
	events.Env = append(os.Environ(), "BAILEY_RUN="+a.run)
	var lines lockedBuffer
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
		a.install(spec{name: name, questions: "exec", settings: map[string]string{"delay": delay.String()}})
	}
	p := a.program("waits")
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
	secret := filepath.Join(a.scratch, "secret")
	const content = "only root may read this"
	if err := os.WriteFile(secret, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	a.install(spec{name: "reader", questions: "open", settings: map[string]string{"read": "true"}})
	events := a.tap("finding")
	if _, err := os.ReadFile(secret); err != nil {
		t.Fatal(err)
	}
	e := a.find(events, "finding of the content", func(e *productv1.Event) bool { return e.GetFinding().GetRule() == "read" })
	if got := e.GetFinding().GetFields()["content"]; got != content {
		t.Errorf("the product read %q through the descriptor, want %q", got, content)
	}
	if got := e.GetFinding().GetFields()["open_by_path"]; got == "<nil>" {
		t.Error("the product could open a root-only file by its path")
	}
}

func TestLateProductGetsTheDefault(t *testing.T) {
	a := startAgent(t, "[questions]\nexec_deadline = \"300ms\"\n")
	a.install(spec{name: "never", questions: "exec", settings: map[string]string{"hang": "true", "only": a.scratch + "/slow"}})
	verdicts := a.tap("verdict")
	p := a.program("slow")
	start := time.Now()
	if err := execs(p); err != nil {
		t.Fatalf("the default is allow: %v", err)
	}
	took := time.Since(start)
	if took < 200*time.Millisecond || took > 400*time.Millisecond {
		t.Errorf("answered after %s, want 80 %% to 100 %% of 300 ms", took)
	}
	e := a.find(verdicts, "verdict", verdictFor(p))
	if got := e.GetVerdict().GetReason(); got != "default" {
		t.Errorf("reason %q, want default", got)
	}
	if e.GetVerdict().GetCached() {
		t.Error("a default was cached")
	}
}

func TestOnMissDeny(t *testing.T) {
	a := startAgent(t, "[questions]\nexec_deadline = \"300ms\"\n")
	a.install(spec{name: "strict", questions: "exec", request: "on_miss = \"deny\"\n",
		settings: map[string]string{"hang": "true", "only": a.scratch + "/slow"}})
	if err := execs(a.program("slow")); !denied(err) {
		t.Errorf("a miss with on_miss = deny gave %v, want EPERM", err)
	}
}

func TestShadowProductIsAskedAndDoesNotCount(t *testing.T) {
	a := startAgent(t, "")
	a.install(spec{name: "ghost", questions: "exec", request: "authority = \"shadow\"\n", settings: map[string]string{"answer": "deny"}})
	verdicts := a.tap("verdict")
	p := a.program("anything")
	if err := execs(p); err != nil {
		t.Fatalf("a shadow product's deny counted: %v", err)
	}
	e := a.find(verdicts, "verdict", verdictFor(p))
	if n := len(e.GetVerdict().GetAnswers()); n != 1 || !e.GetVerdict().GetAnswers()[0].GetShadow() || e.GetVerdict().GetAnswers()[0].GetAllow() {
		t.Errorf("the shadow deny is not recorded: %v", e.GetVerdict())
	}
}

func TestKilledProductChangesNothingButItsRestarts(t *testing.T) {
	a := startAgent(t, "")
	a.install(spec{name: "mortal", questions: "exec"})
	p := a.program("works")
	before := a.product("mortal")
	if err := syscall.Kill(int(before.GetPid()), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := execs(p); err != nil {
		t.Errorf("exec while the product is dead: %v", err)
	}
	a.eventually("the product is back", 10*time.Second, func() error {
		now := a.product("mortal")
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
	lower := filepath.Join(a.scratch, "lower")
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(a.scratch, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(lower, "denied"), tinyProgram("denied"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(lower, "allowed"), tinyProgram("allowed"), 0o755); err != nil {
		t.Fatal(err)
	}
	a.install(spec{name: "judge", questions: "exec", settings: map[string]string{"deny_content": "denied"}})
	// A mount namespace of its own, an overlay as the root's part, and time for the agent to see the new mount.
	const script = `set -e
mount -t overlay overlay -o lowerdir="$1/lower,upperdir=$1/upper,workdir=$1/work" "$1/merged" 2>/dev/null ||
mount -t overlay overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" "$1/merged"
sleep 2
chroot "$1/merged" /allowed && echo allowed-ran
chroot "$1/merged" /denied && echo denied-ran || true`
	cmd := exec.Command("unshare", "-m", "sh", "-c", script, "sh", a.scratch)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if s := out.String(); !strings.Contains(s, "allowed-ran") || strings.Contains(s, "denied-ran") {
		t.Errorf("in the container: %s", s)
	}
}
