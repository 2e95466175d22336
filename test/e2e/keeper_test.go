package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bailey/agent/keeper"
	"bailey/test/rig"

	"golang.org/x/sys/unix"
)

// keeperConfig lets a test kill its agent as often as it likes.
const keeperConfig = "[keeper]\ncrash_loop = 100000\nbackoff_max = \"5ms\"\n[questions]\nopen_scope = [\"temporary\"]\n"

// state is what the keeper wrote last.
func keeperState(a *rig.Agent) keeper.State {
	a.T.Helper()
	s, err := keeper.ReadState(a.Run)
	if err != nil {
		a.T.Fatal(err)
	}
	return s
}

// agentPID waits until an agent other than the one before serves.
func agentPID(a *rig.Agent, before int) int {
	a.T.Helper()
	var pid int
	a.Eventually("an agent serves", 20*time.Second, func() error {
		s, err := keeper.ReadState(a.Run)
		if err != nil {
			return err
		}
		if s.State != keeper.Serving || s.Agent == before || s.Agent == 0 {
			return fmt.Errorf("the keeper says %+v", s)
		}
		pid = s.Agent
		return nil
	})
	return pid
}

// times returns how often a test does its worst: few times by default, more with $name.
func times(t *testing.T, name string, few int) int {
	t.Helper()
	if v := os.Getenv(name); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("read %s: %v", name, err)
		}
		return n
	}
	return few
}

// openers are processes' opens and execs on the scratch filesystem, each timed.
type openers struct {
	stop         chan struct{}
	once         sync.Once
	wg           sync.WaitGroup
	opens, execs atomic.Int64
	failed       atomic.Int64
	mu           sync.Mutex
	longest      time.Duration
	waits        []time.Duration // of opens, those beyond 20 ms
	firstErr     error
}

const loadFiles = 16

// load starts workers of which half open and half execute, all the time.
func load(a *rig.Agent, workers int, pause time.Duration) *openers {
	a.T.Helper()
	o := &openers{stop: make(chan struct{})}
	a.T.Cleanup(func() { o.end() })
	var files []string
	for i := range loadFiles {
		files = append(files, a.Program(fmt.Sprintf("load-%d", i)))
	}
	for w := range workers {
		o.wg.Go(func() {
			for i := w; ; i++ {
				select {
				case <-o.stop:
					return
				case <-time.After(pause):
				}
				begin := time.Now()
				var err error
				if w%2 == 0 {
					err = openOnce(files[i%len(files)])
					o.opens.Add(1)
				} else {
					err = execs(files[i%len(files)])
					o.execs.Add(1)
				}
				o.note(time.Since(begin), err)
			}
		})
	}
	return o
}

func openOnce(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func (o *openers) note(took time.Duration, err error) {
	if err == nil && took < 20*time.Millisecond {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.failed.Add(1)
		o.firstErr = err
	}
	o.longest = max(o.longest, took)
	o.waits = append(o.waits, took)
}

// end stops the load and says how long the longest operation took, and the 99th percentile of all.
func (o *openers) end() (longest, p99 time.Duration) {
	o.once.Do(func() { close(o.stop) })
	o.wg.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	slices.Sort(o.waits)
	all := int(o.opens.Load() + o.execs.Load())
	if beyond := len(o.waits) - all/100; beyond > 0 {
		p99 = o.waits[len(o.waits)-1-all/100]
	}
	return o.longest, p99
}

// TestAgentKilledUnderLoad: F5. Whoever waits when the agent is killed, or comes until the next one serves, gets an answer of the keeper's
// within its patience; each is counted, none fails.
func TestAgentKilledUnderLoad(t *testing.T) {
	a := startAgent(t, keeperConfig)
	a.Install(rig.Spec{
		Name: "good", Questions: "exec,open", Events: "exec,exit,close_write", Settings: map[string]string{"ledger": "true"},
		Limits: "memory = \"256MiB\"\n",
	})
	n := times(t, "BAILEY_KILLS", 40)
	o := load(a, 32, 2*time.Millisecond)
	written := int64(loadFiles) // each is opened once to be written
	pid := 0
	for range n {
		pid = agentPID(a, pid)
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	agentPID(a, pid)
	longest, p99 := o.end()
	k := a.Status().GetKeeper()
	t.Logf("%d kills, %d opens, %d execs: longest %v, p99 %v; keeper %v", n, o.opens.Load(), o.execs.Load(), longest, p99, k)
	if o.failed.Load() > 0 {
		t.Errorf("%d operations failed, e.g. %v", o.failed.Load(), o.firstErr)
	}
	if k.GetRestarts() != uint64(n) || k.GetBypassed() == 0 {
		t.Errorf("after %d kills the keeper counts %v", n, k)
	}
	// An exec of a program without a loader is asked about twice. What an agent was killed at may be in nobody's account.
	want, got := written+o.opens.Load()+2*o.execs.Load(), int64(k.GetAnswered()+k.GetBypassed())
	if got > want || got < want-int64(n) {
		t.Errorf("%d questions are accounted for, %d were asked", got, want)
	}
	// The product lived through all of it: what it was not told, it was told of.
	account := ledger(a)
	if account["silent"] != "0" {
		t.Errorf("%s events are missing unannounced", account["silent"])
	}
	if p := a.Product("good"); p.GetRestarts() != 0 {
		t.Errorf("the product was restarted %d times", p.GetRestarts())
	}
}

// ledger asks the product for its account of events, which it gives when it sees a certain file written. That event can be among those
// that it is told it lost, so it is asked until it hears.
func ledger(a *rig.Agent) map[string]string {
	a.T.Helper()
	findings := a.Tap("finding")
	var account map[string]string
	asked := 0
	a.Eventually("the product's account", 20*time.Second, func() error {
		a.File(fmt.Sprintf("ledger-%d", asked), "", 0o644)
		asked++
		for _, e := range findings.All() {
			if e.GetFinding().GetRule() == "ledger" {
				account = e.GetFinding().GetFields()
				return nil
			}
		}
		return errors.New("not seen")
	})
	a.T.Logf("asked %d times: %v", asked, account)
	return account
}

// TestAgentStopped: F4. An agent that is stopped is answered for, goes on when it is continued, and answers nothing twice.
func TestAgentStopped(t *testing.T) {
	a := startAgent(t, keeperConfig)
	a.Install(rig.Spec{Name: "good", Questions: "exec,open"})
	pid := agentPID(a, 0)
	file := a.Program("x")
	for round := range 5 {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := openOnce(file); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 200*time.Millisecond {
			t.Errorf("round %d: an open took %v while the agent was stopped", round, took)
		} else {
			t.Logf("round %d: an open took %v", round, took)
		}
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		a.Eventually("the agent answers again", 5*time.Second, func() error {
			before := a.Status().GetQuestions().GetAsked()
			if err := openOnce(file); err != nil {
				return err
			}
			if after := a.Status().GetQuestions().GetAsked(); after == before {
				return fmt.Errorf("%d questions before and after an open", after)
			}
			return nil
		})
		if now := agentPID(a, 0); now != pid {
			t.Fatalf("the agent was started again")
		}
	}
	st := a.Status()
	if n := st.GetQuestions().GetInFlight(); n != 0 {
		t.Errorf("%d questions in flight", n)
	}
	for _, s := range st.GetSensors() {
		if s.GetName() == "file" && s.GetCounters()["answer_errors"] != 0 {
			t.Errorf("%d answers were refused by the kernel", s.GetCounters()["answer_errors"])
		}
	}
}

// An agent that is stopped for good is ended and started again.
func TestAgentStoppedForGood(t *testing.T) {
	a := startAgent(t, keeperConfig)
	a.Install(rig.Spec{Name: "good", Questions: "exec"})
	pid := agentPID(a, 0)
	program := a.Program("x")
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		begin := time.Now()
		if err := execs(program); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 200*time.Millisecond {
			t.Errorf("an exec took %v", took)
		}
	}
	agentPID(a, pid)
	if k := a.Status().GetKeeper(); k.GetKills() != 1 || k.GetRestarts() != 1 {
		t.Errorf("the keeper counts %v", k)
	}
}

// TestKeeperKilled: without its keeper the agent ends, nobody is left waiting, and both can be started again at once.
func TestKeeperKilled(t *testing.T) {
	for _, test := range []struct {
		name string
		kill func(a *rig.Agent, agentPID int)
	}{
		{"keeper", func(a *rig.Agent, _ int) { _ = a.Cmd.Process.Kill() }},
		{"both", func(a *rig.Agent, pid int) { _ = a.Cmd.Process.Kill(); _ = syscall.Kill(pid, syscall.SIGKILL) }},
		{"agent_first", func(a *rig.Agent, pid int) { _ = syscall.Kill(pid, syscall.SIGKILL); _ = a.Cmd.Process.Kill() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := startAgent(t, keeperConfig)
			a.Install(rig.Spec{Name: "good", Questions: "exec,open"})
			o := load(a, 8, time.Millisecond)
			for range times(t, "BAILEY_KEEPER_KILLS", 5) {
				pid := agentPID(a, 0)
				time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
				test.kill(a, pid)
				_ = a.Cmd.Wait()
				a.Eventually("the agent is gone", 10*time.Second, func() error {
					if err := syscall.Kill(pid, 0); err == nil {
						return fmt.Errorf("process %d is there", pid)
					}
					return nil
				})
				a.Start()
				a.Eventually("the product is asked again", 20*time.Second, func() error {
					if p := a.Product("good"); p.GetAuthority() != "live" {
						return fmt.Errorf("it is %s, %s", p.GetState(), p.GetAuthority())
					}
					return nil
				})
			}
			longest, p99 := o.end()
			t.Logf("%d opens, %d execs: longest %v, p99 %v", o.opens.Load(), o.execs.Load(), longest, p99)
			if o.failed.Load() > 0 {
				t.Errorf("%d operations failed, e.g. %v", o.failed.Load(), o.firstErr)
			}
		})
	}
}

// TestAllProductsKilled: who waits for products that die all at once is answered, and they return.
func TestAllProductsKilled(t *testing.T) {
	a := startAgent(t, keeperConfig)
	names := []string{"one", "two", "three"}
	for _, name := range names {
		a.Install(rig.Spec{Name: name, Questions: "exec,open"})
	}
	o := load(a, 8, time.Millisecond)
	killed := map[string]uint32{}
	for range times(t, "BAILEY_PRODUCT_KILLS", 3) {
		for _, name := range names {
			a.Eventually(name+" runs", 20*time.Second, func() error {
				switch p := a.Product(name); {
				case p.GetState() == "failed": // ended too often within a minute
					a.Must("product", "start", name)
				case p.GetState() == "running" && p.GetPid() != killed[name]:
					return nil
				}
				return fmt.Errorf("it is %s", a.Product(name).GetState())
			})
		}
		time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
		for _, p := range a.Status().GetProducts() {
			if p.GetPid() > 0 {
				_ = syscall.Kill(int(p.GetPid()), syscall.SIGKILL)
				killed[p.GetName()] = p.GetPid()
			}
		}
	}
	longest, p99 := o.end()
	t.Logf("%d opens, %d execs: longest %v, p99 %v", o.opens.Load(), o.execs.Load(), longest, p99)
	if o.failed.Load() > 0 {
		t.Errorf("%d operations failed, e.g. %v", o.failed.Load(), o.firstErr)
	}
	if k := a.Status().GetKeeper(); k.GetRestarts() != 0 {
		t.Errorf("the agent was started again %d times", k.GetRestarts())
	}
}

// TestCrashLoop: an agent that ends again and again is not started for ever; the keeper answers alone, and says so.
func TestCrashLoop(t *testing.T) {
	a := startAgent(t, "[keeper]\ncrash_loop = 3\nbackoff_max = \"5ms\"\n")
	a.Install(rig.Spec{Name: "good", Questions: "exec"})
	program := a.Program("x")
	pid := 0
	for range 3 {
		pid = agentPID(a, pid)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	a.Eventually("the keeper gives up", 10*time.Second, func() error {
		if s := keeperState(a); s.State != keeper.Bypass || s.Agent != 0 {
			return fmt.Errorf("it says %+v", s)
		}
		return nil
	})
	for range 20 {
		if err := execs(program); err != nil {
			t.Fatal(err)
		}
	}
	out, err := a.Bailey("status")
	if err == nil || !strings.Contains(out, "keeper") || !strings.Contains(out, "kill -HUP") {
		t.Errorf("status says %q, %v", out, err)
	}
	if err := a.Cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	agentPID(a, pid)
	a.Running("good")
}

// TestUpgrade: the running agent is swapped under load. Nobody waits for long, nothing fails, and no event is lost.
func TestUpgrade(t *testing.T) {
	a := startAgent(t, keeperConfig)
	a.Install(rig.Spec{
		Name: "good", Questions: "exec,open", Events: "exec,exit,close_write", Settings: map[string]string{"ledger": "true"},
	})
	o := load(a, 8, 2*time.Millisecond)
	before := a.Status().GetKeeper()
	pid := agentPID(a, 0)
	for i := range times(t, "BAILEY_UPGRADES", 5) {
		binary := filepath.Join(a.Dir, fmt.Sprintf("bailey-%d", i))
		if out, err := exec.Command("cp", filepath.Join(built, "bailey"), binary).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		out := a.Must("agent", "upgrade", binary)
		next := agentPID(a, pid)
		t.Logf("upgrade %d: %s", i, out)
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", next)); err != nil || exe != binary {
			t.Errorf("the agent runs %s, not %s: %v", exe, binary, err)
		}
		pid = next
	}
	longest, p99 := o.end()
	k := a.Status().GetKeeper()
	t.Logf("%d opens, %d execs: longest %v, p99 %v; keeper %v", o.opens.Load(), o.execs.Load(), longest, p99, k)
	if o.failed.Load() > 0 {
		t.Errorf("%d operations failed, e.g. %v", o.failed.Load(), o.firstErr)
	}
	if account := ledger(a); account["silent"] != "0" || account["announced"] != "0" {
		t.Errorf("events were lost: %v", account)
	}
	if n := k.GetBypassed() - before.GetBypassed(); n > 0 {
		t.Errorf("%d questions were answered by the keeper", n)
	}
	if k.GetRestarts() != 0 {
		t.Errorf("the agent was restarted %d times", k.GetRestarts())
	}
}

// A program that is no agent does not replace one.
func TestUpgradeToNothing(t *testing.T) {
	a := startAgent(t, keeperConfig)
	pid := agentPID(a, 0)
	for _, path := range []string{"/bin/true", "/etc/hostname", a.Dir, filepath.Join(a.Dir, "missing")} {
		if out, err := a.Bailey("agent", "upgrade", path); err == nil {
			t.Errorf("upgrade to %s succeeds: %s", path, out)
		}
	}
	if now := agentPID(a, 0); now != pid {
		t.Errorf("the agent is another one")
	}
}
