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
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	productv1 "bailey/api/product/v1"
)

// execs runs a program and returns what exec said.
func execs(path string) error { return exec.Command(path).Run() }

func denied(err error) bool { return errors.Is(err, syscall.EPERM) }

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

func TestCachedAllowIsNotAsked(t *testing.T) {
	a := startAgent(t, "")
	a.install(spec{name: "cacher", questions: "open", settings: map[string]string{"cache": "true", "note": ""}})
	path := filepath.Join(a.scratch, "file")
	if err := os.WriteFile(path, []byte("v1"), 0o644); err != nil {
		t.Fatal(err)
	}
	open := func() {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	questions := func() uint64 { return a.product("cacher").GetCounters().GetQuestions() }
	asked := func(what string, want uint64, f func()) {
		t.Helper()
		before := questions()
		f()
		if got := questions() - before; got != want {
			t.Errorf("%s: %d questions reached the product, want %d", what, got, want)
		}
	}
	settle := func() { time.Sleep(300 * time.Millisecond) } // close-after-write events are asynchronous

	settle()
	open() // the first: asked and cached
	kernel := a.status().GetQuestions().GetAsked()
	asked("100,000 opens of a cached file", 0, func() {
		for range 100_000 {
			open()
		}
	})
	if got := a.status().GetQuestions().GetAsked() - kernel; got != 0 {
		t.Errorf("the kernel asked %d times about a cached file", got)
	}

	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		settle()
	}
	write("v2, longer")
	asked("an open after a change", 1, open)
	asked("the open after that", 0, open)
	a.must("product", "set", "cacher", "note=changed")
	a.running("cacher")
	settle()
	asked("an open after new settings", 1, open)
	asked("the open after that", 0, open)
	a.must("product", "restart", "cacher")
	a.running("cacher")
	settle()
	before := a.status().GetQuestions().GetAsked()
	open()
	if got := a.status().GetQuestions().GetAsked() - before; got != 1 {
		t.Errorf("after a restart of the product the kernel asked %d times, want 1", got)
	}
	asked("an open cached after the restart", 0, open)
	a.must("cache", "clear")
	asked("an open after cache clear", 1, open)
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

// TestParallelExecs is the load: four products, one always late and one killed every second.
func TestParallelExecs(t *testing.T) {
	const (
		total    = 10_000
		workers  = 64
		deadline = 500 * time.Millisecond
	)
	a := startAgent(t, fmt.Sprintf("[questions]\nexec_deadline = %q\n", deadline))
	for _, s := range []spec{
		{name: "good"}, {name: "other"},
		{name: "late", settings: map[string]string{"delay": "600ms"}, limits: "pids = 512\n"},
		{name: "dying"},
	} {
		s.questions = "exec"
		a.install(s)
	}
	programs := make([]string, 50)
	for i := range programs {
		programs[i] = a.program(fmt.Sprintf("program-%d", i))
	}
	execEvents, verdicts := a.tap("exec"), a.tap("verdict")
	before := a.status().GetQuestions()

	stop := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				for _, p := range a.status().GetProducts() {
					if p.GetName() == "dying" && p.GetPid() > 0 {
						_ = syscall.Kill(int(p.GetPid()), syscall.SIGKILL)
					}
				}
			}
		}
	})
	var next, failed atomic.Int64
	var longest atomic.Int64
	var load sync.WaitGroup
	for range workers {
		load.Go(func() {
			for n := next.Add(1); n <= total; n = next.Add(1) {
				start := time.Now()
				if err := execs(programs[n%int64(len(programs))]); err != nil {
					failed.Add(1)
					t.Errorf("exec %d: %v", n, err)
				}
				took := int64(time.Since(start))
				for old := longest.Load(); took > old && !longest.CompareAndSwap(old, took); old = longest.Load() {
				}
			}
		})
	}
	load.Wait()
	close(stop)
	killer.Wait()

	t.Logf("longest exec %s, %d failed", time.Duration(longest.Load()), failed.Load())
	after := a.status().GetQuestions()
	asked := after.GetAsked() - before.GetAsked()
	if asked != total {
		t.Errorf("the kernel asked %d times for %d execs", asked, total)
	}
	var sum uint64
	for reason, n := range after.GetByReason() {
		sum += n - before.GetByReason()[reason]
	}
	if sum != asked {
		t.Errorf("%d questions have %d recorded outcomes: %v", asked, sum, after.GetByReason())
	}
	if after.GetInFlight() != 0 {
		t.Errorf("%d questions are still in flight", after.GetInFlight())
	}
	a.eventually("every question has one recorded outcome", 10*time.Second, func() error {
		if n := len(verdicts.all()); n != total {
			return fmt.Errorf("%d verdict events for %d questions", n, total)
		}
		return nil
	})
	// An exec takes longer than its question when 64 workers share two cores; the question is what the deadline is about.
	var slowest time.Duration
	outcomes := map[string]int{}
	seen := map[uint64]bool{}
	for _, e := range verdicts.all() {
		v := e.GetVerdict()
		if seen[v.GetQuestionId()] {
			t.Errorf("question %d has two recorded outcomes", v.GetQuestionId())
		}
		seen[v.GetQuestionId()] = true
		slowest = max(slowest, time.Duration(v.GetLatency()))
		for _, p := range v.GetAnswers() {
			outcomes[p.GetProduct()+" "+p.GetOutcome()]++
		}
	}
	t.Logf("slowest answer to the kernel %s; %v", slowest, outcomes)
	if slowest > deadline {
		t.Errorf("the kernel waited %s for an answer with a deadline of %s", slowest, deadline)
	}
	a.eventually("every exec is an event", 10*time.Second, func() error {
		var n int
		for _, e := range execEvents.all() {
			if strings.HasPrefix(e.GetProcess().GetExecutable().GetPath(), a.scratch) {
				n++
			}
		}
		if n != total {
			return fmt.Errorf("%d exec events for %d execs", n, total)
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
