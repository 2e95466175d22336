package agent

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bailey/agent/config"
	"bailey/agent/critical"
	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/hub"
	"bailey/agent/product"
	"bailey/agent/product/keepertest"
	"bailey/agent/product/link"
	"bailey/agent/sensor/process"
	"bailey/agent/verdict"
	"bailey/internal/boottime"
	"bailey/internal/leakcheck"
	"bailey/internal/roottest"
)

const survivorBase = "BAILEY_TEST_SURVIVOR_BASE"

func TestMain(m *testing.M) { leakcheck.Main(m) }

// survivorUIDs are not those of the product package's tests, which may run beside these.
var survivorUIDs = uint32(1_980_000_000 + 16*(os.Getpid()%4096))

// world is as much of an agent as products need, with sensors of the test's own.
type world struct {
	a    *Agent
	stop func()
}

func newWorld(t *testing.T, base string, uids uint32, k Keeper) *world {
	t.Helper()
	a := &Agent{
		cfg: config.Default(), log: slog.New(slog.DiscardHandler), health: health.NewRegistry(), codec: new(link.Codec),
		daemons: newDaemons(), ready: newReadiness(), keeper: k,
	}
	a.cfg.Agent.State, a.cfg.Agent.Run = filepath.Join(base, "state"), filepath.Join(base, "run")
	var err error
	if a.hub, err = hub.New(hub.Config{Encoder: a.codec, Now: boottime.Now, Health: a.health, Window: eventWindow}); err != nil {
		t.Fatal(err)
	}
	a.engine, err = verdict.New(verdict.Config{Electorate: a.hub, Now: boottime.Now, NoCache: true, OnAuthority: a.hub.SetDegraded, Generation: a.generation()})
	if err != nil {
		t.Fatal(err)
	}
	a.hub.Bind(a.engine)
	if a.processes, err = process.New(process.Config{Emit: func(*event.Event) {}, Log: a.log, Health: a.health}); err != nil {
		t.Fatal(err)
	}
	if a.critical, err = critical.New(critical.Config{}); err != nil {
		t.Fatal(err)
	}
	if err = a.newBrake(); err != nil {
		t.Fatal(err)
	}
	a.products, err = product.New(product.Config{
		State: a.cfg.Agent.State, Run: a.cfg.Agent.Run, Host: host{a}, Health: a.health, Log: a.log, Emit: a.hub.Publish, Keeper: k,
		UIDBase: uids, Helper: []string{filepath.Join(base, "helper")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &world{a: a}
}

// run starts the agent and returns when the product is asked, and how long that took.
func (w *world) run(t *testing.T) time.Duration {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	began := time.Now()
	running.Go(func() { _ = w.a.engine.Run(ctx) })
	products, stopProducts := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- w.a.products.Run(products) }()
	w.stop = sync.OnceFunc(func() {
		stopProducts()
		if err := <-ended; err != nil {
			t.Errorf("products: %v", err)
		}
		cancel()
		running.Wait()
		w.a.hub.Close()
		if err := w.a.processes.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.stop)
	await := func(what string, f func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !f(); <-time.After(200 * time.Microsecond) {
			if time.Now().After(deadline) {
				t.Fatalf("never: %s: %+v", what, w.a.products.List())
			}
		}
	}
	await("it subscribed", func() bool { return w.a.ready.is("survivor") })
	took := time.Since(began)
	await("it is running", func() bool { return w.view(t).Status.State == product.Running })
	return took
}

func (w *world) publish(n int) {
	for range n {
		w.a.hub.Publish(&event.Event{Kind: event.Exec, Time: boottime.Now(), Process: &event.Process{Comm: "x"}})
	}
}

// asker stands for the kernel.
type asker struct{ answer chan event.Decision }

func (k asker) Answer(_ *event.Question, d event.Decision) { k.answer <- d }
func (k asker) Release(*event.Question)                    {}

func (w *world) ask(path string) <-chan event.Decision {
	q := new(event.Question)
	q.Reset()
	k := asker{make(chan event.Decision, 1)}
	q.Kind, q.Source, q.Time, q.File, q.Process = event.Exec, k, boottime.Now(), event.File{Path: path}, &event.Process{}
	w.a.engine.Ask(q)
	return k.answer
}

type told struct{ events, dropped, restarted, unannounced uint64 }

func (a told) total() uint64 { return a.events + a.dropped + a.restarted }

// account asks the product what it was told.
func (w *world) account(t *testing.T) told {
	t.Helper()
	tap := w.a.hub.Tap(event.KindsOf(event.Finding), 10)
	defer tap.Close()
	w.ask("/count")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	e, _, err := tap.Next(ctx)
	if err != nil {
		t.Fatalf("the product does not report: %v", err)
	}
	n := func(field string) uint64 {
		v, err := strconv.ParseUint(e.Finding.Fields[field], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	return told{n("events"), n("dropped"), n("restarted"), n("unannounced")}
}

// settled returns the account when it covers all that was made.
func (w *world) settled(t *testing.T, made func() uint64) told {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(20 * time.Millisecond) {
		a := w.account(t)
		if a.total() == made() {
			return a
		}
		if a.total() > made() || time.Now().After(deadline) {
			t.Fatalf("the product accounts for %+v, %d were made", a, made())
		}
	}
}

// made reads the kept count of events.
func made(t *testing.T, k *keepertest.Keeper) func() uint64 {
	return func() uint64 {
		f := k.Copy(t, "product/survivor/memory")
		defer func() { _ = f.Close() }()
		b := make([]byte, 8)
		if _, err := f.ReadAt(b, 8); err != nil {
			t.Fatal(err)
		}
		return binary.LittleEndian.Uint64(b)
	}
}

// survivor puts the product and its helper below base, ready to run for any world on it.
func survivor(t *testing.T, base string) {
	t.Helper()
	roottest.Require(t, "products run as users of their own")
	program := "testdata/survivor/survivor" // where there is no go command it was built beside its source
	if _, err := exec.LookPath("go"); err == nil {
		program = filepath.Join(base, "survivor")
		cmd := exec.Command("go", "build", "-o", program, "./testdata/survivor")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build the product: %v: %s", err, text)
		}
	}
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(base, "folder")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	manifest := "name = \"survivor\"\nversion = \"1\"\n[run]\ncommand = [\"./survivor\"]\n[request]\nsee = [\"exec\"]\ndecide = [\"exec\"]\ndeny = true\n[limits]\ncpu = 1.0\n"
	for name, text := range map[string]string{filepath.Join(base, "helper"): string(b), filepath.Join(folder, "survivor"): string(b), filepath.Join(folder, "manifest.toml"): manifest} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t, base, survivorUIDs, nil)
	if _, err := w.a.products.Install(t.Context(), folder, func(product.Request) error { return nil }); err != nil {
		t.Fatal(err)
	}
	w.a.hub.Close()
	if err := w.a.processes.Close(); err != nil {
		t.Fatal(err)
	}
}

func (w *world) view(t *testing.T) product.View {
	t.Helper()
	v, err := w.a.products.Show("survivor")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (w *world) kept(t *testing.T, k *keepertest.Keeper) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !slices.Contains(k.Holds(), "product/survivor/alive"); {
		if time.Now().After(deadline) {
			t.Fatal("it is not kept")
		}
		<-time.After(time.Millisecond)
	}
}

// An orderly hand-over under load loses nothing: the product sees every event, and its denies count with the next agent.
func TestHandOverLosesNothing(t *testing.T) {
	base := t.TempDir()
	survivor(t, base)
	k := keepertest.New(t)
	t.Cleanup(func() { keepertest.Reap() })
	w := newWorld(t, base, survivorUIDs, k)
	w.run(t)
	w.kept(t, k)
	pid := w.view(t).Status.PID
	for range 5 {
		w.publish(3000)
		if d := <-w.ask("/deny"); d.Allow {
			t.Errorf("verdict %+v", d)
		}
		began := time.Now()
		w.a.leaving.Store(true)
		w.a.products.Leave()
		w.stop()
		t.Logf("left after %v", time.Since(began))
		k.Next()
		w = newWorld(t, base, survivorUIDs, k)
		t.Logf("next after %v", time.Since(began))
		took := w.run(t)
		v := w.view(t)
		if v.Status.PID != pid || v.Status.Restarts != 0 {
			t.Errorf("process %d, restarted %d times, want process %d", v.Status.PID, v.Status.Restarts, pid)
		}
		if !w.a.processes.Platform(uint32(pid)) {
			t.Error("the product is not known as part of the platform")
		}
		t.Logf("subscribed again after %v", took)
	}
	if got := w.settled(t, made(t, k)); got != (told{events: 15000}) {
		t.Errorf("the product accounts for %+v, want 15000 events and no loss", got)
	}
	if _, err := w.a.products.Stop(t.Context(), "survivor"); err != nil {
		t.Error(err)
	}
	w.stop()
}

// TestSurvivedAgent is no test but an agent under load, which another test kills.
func TestSurvivedAgent(t *testing.T) {
	base, uid, ok := strings.Cut(os.Getenv(survivorBase), "@")
	if !ok {
		return
	}
	uids, err := strconv.ParseUint(uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	k := keepertest.Dial(3)
	w := newWorld(t, base, uint32(uids), k)
	took := w.run(t)
	k.Tell(fmt.Sprint("subscribed ", took))
	k.Tell("ready")
	for {
		w.publish(100)
		w.ask("/bin/true")
		<-time.After(time.Millisecond)
	}
}

// Killed at any moment under load, an agent leaves a product that can account for every number: what it got and what it was
// told it lost is together what was made.
func TestProductAccountsForEveryEventOverKilledAgents(t *testing.T) {
	base := t.TempDir()
	survivor(t, base)
	k := keepertest.New(t)
	var agent atomic.Int64
	keepertest.ReapAlways(t, func() []int { return []int{int(agent.Load())} })
	pids := map[string]bool{}
	for round := range 20 {
		cmd := k.Start(t, []string{fmt.Sprintf("%s=%s@%d", survivorBase, base, survivorUIDs)}, os.Args[0], "-test.run=^TestSurvivedAgent$")
		agent.Store(int64(cmd.Process.Pid))
		k.Await(t, "ready")
		<-time.After(time.Duration(20+3*round) * time.Millisecond)
		if round == 0 {
			(&world{}).kept(t, k)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		pids[fmt.Sprint(pidsOf(survivorUIDs))] = true
	}
	if len(pids) != 1 {
		t.Errorf("the processes were %v, want the same all the time", pids)
	}
	k.Next()
	w := newWorld(t, base, survivorUIDs, k)
	t.Logf("subscribed again after %v", w.run(t))
	got := w.settled(t, made(t, k))
	t.Logf("%d events made: %+v", got.total(), got)
	if got.unannounced != 0 || got.events == 0 {
		t.Errorf("the product accounts for %+v", got)
	}
	if d := <-w.ask("/deny"); d.Allow {
		t.Errorf("verdict %+v", d)
	}
	w.stop()
}

// pidsOf lists the living processes of a user.
func pidsOf(uid uint32) (pids []string) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		b, err := os.ReadFile(d + "/status")
		if err == nil && strings.Contains(string(b), fmt.Sprintf("Uid:\t%d\t", uid)) && !strings.Contains(string(b), "\nState:\tZ") {
			pids = append(pids, filepath.Base(d))
		}
	}
	return pids
}
