package product_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/product"
	"bailey/agent/product/keepertest"
)

// leave ends the manager as a hand-over to the next one.
func (y *yard) leave() {
	y.m.Leave()
	y.stop()
}

// successor makes the next agent's manager on the same state.
func (y *yard) successor() {
	y.t.Helper()
	y.cfg.Keeper.(*keepertest.Keeper).Next()
	*y.host = *newHost()
	y.health = health.NewRegistry()
	y.cfg.Health = y.health
	y.open()
}

func keptYard(t *testing.T, change func(*product.Config)) (*yard, *keepertest.Keeper) {
	k := keepertest.New(t)
	y := newYard(t, func(c *product.Config) {
		c.Keeper = k
		if change != nil {
			change(c)
		}
	})
	return y, k
}

// kept waits until the keeper has everything of a product.
func (y *yard) kept(name string) {
	y.t.Helper()
	y.eventually("it is kept", func() bool { return y.healthOf("product."+name+".kept").Summary != "" })
	if e := y.healthOf("product." + name + ".kept"); e.Status != health.OK {
		y.t.Fatalf("%+v", e)
	}
}

func (y *yard) running(name string) product.View {
	y.t.Helper()
	y.eventually("it runs", func() bool { return y.show(name).Status.State == product.Running })
	return y.show(name)
}

// say tells a product that speaks something, and returns when it has said it.
func (y *yard) say(name, what string) {
	y.t.Helper()
	_, s := y.host.last(name)
	if _, err := unix.Write(s.fd, []byte(what)); err != nil {
		y.t.Fatal(err)
	}
	if got := <-s.heard; got != "said" {
		y.t.Fatalf("it said %q", got)
	}
	y.eventually("it is logged", func() bool {
		return strings.Contains(y.logText(name), "out told "+what) && strings.Contains(y.logText(name), "err also "+what)
	})
}

func TestLeave_and_the_next_agent_goes_on(t *testing.T) {
	y, k := keptYard(t, nil)
	y.run()
	uid := y.install("speaker", "1", "speak", "").UID
	if _, err := y.m.Restart(t.Context(), "speaker"); err != nil {
		t.Fatal(err)
	}
	first := y.running("speaker")
	y.kept("speaker")
	y.say("speaker", "one")
	inst, _ := y.host.last("speaker")
	inst.EventsMade.Store(42)
	for round := range 3 {
		y.leave()
		if n := processesOf(uid); n != 2 {
			t.Fatalf("%d processes between two agents", n)
		}
		y.successor()
		y.run()
		v := y.running("speaker")
		if v.Status.PID != first.Status.PID || v.Status.Restarts != first.Status.Restarts || !v.Status.Since.Equal(first.Status.Since) || v.Status.Restarts != 1 {
			t.Errorf("round %d: %+v, it was %+v", round, v.Status, first.Status)
		}
		y.kept("speaker")
		if inst, _ := y.host.last("speaker"); inst.EventsMade.Load() != 42 || inst.PID != first.Status.PID || y.host.resumed["speaker"] != 1 {
			t.Errorf("round %d: instance %+v", round, inst)
		}
		y.say("speaker", fmt.Sprint("round", round))
	}
	y.eventually("it is measured", func() bool { return y.show("speaker").Status.Memory > 0 })

	// It is supervised as if this agent had started it.
	if err := unix.Kill(first.Status.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	y.eventually("it is started again", func() bool {
		s := y.show("speaker").Status
		return s.State == product.Running && s.PID != first.Status.PID && s.Restarts == 2
	})
	keepertest.Reap()
	y.kept("speaker")
	y.leave()
	y.successor()
	y.run()
	y.running("speaker")
	if v, err := y.m.Stop(t.Context(), "speaker"); err != nil || v.Status.State != product.Stopped {
		t.Errorf("stop: %+v, %v", v.Status, err)
	}
	keepertest.Reap()
	if names := k.Holds(); len(names) != 0 {
		t.Errorf("still kept: %v", names)
	}
	y.stop()
	if n := processesOf(uid); n != 0 {
		t.Errorf("%d processes are left", n)
	}
}

// What the next agent would not start like this is not taken over: it ends, and what shall run is started anew.
func TestSuccessor_ends_what_does_not_fit(t *testing.T) {
	tests := map[string]struct {
		meanwhile func(y *yard, pid int)
		runs      bool
		more      string
	}{
		"settings_changed": {func(y *yard, _ int) {
			if _, err := y.m.Set(y.t.Context(), "p", map[string]string{"mode": "b"}); err != nil {
				y.t.Fatal(err)
			}
		}, true, ""},
		"disabled": {func(y *yard, _ int) {
			if _, err := y.m.Stop(y.t.Context(), "p"); err != nil {
				y.t.Fatal(err)
			}
		}, false, ""},
		"removed": {func(y *yard, _ int) {
			if err := y.m.Remove(y.t.Context(), "p", true); err != nil {
				y.t.Fatal(err)
			}
		}, false, ""},
		"killed":       {func(_ *yard, pid int) { _ = unix.Kill(pid, unix.SIGKILL) }, true, ""},
		"no_reply":     {func(y *yard, _ int) { y.host.silent["p"] = true }, true, ""},
		"part_missing": {func(y *yard, _ int) { k := y.cfg.Keeper.(*keepertest.Keeper); _ = k.Drop("product/p/alive"); k.Next() }, true, ""},
		"rubbish": {func(y *yard, _ int) {
			f, err := os.Open(os.DevNull)
			if err != nil {
				y.t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			k := y.cfg.Keeper.(*keepertest.Keeper)
			if err := k.Keep("product/p/memory", int(f.Fd())); err != nil {
				y.t.Fatal(err)
			}
			k.Next()
		}, true, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			y, k := keptYard(t, func(c *product.Config) { c.ResumePatience = 100 * time.Millisecond })
			keepertest.ReapAlways(t, func() []int { return nil })
			y.run()
			v := y.install("p", "1", "sleep", "[settings]\nmode = \"a\"\n"+tt.more)
			old := v.Status.PID
			y.kept("p")
			y.leave()
			y.successor()
			tt.meanwhile(y, old)
			y.run()
			if tt.runs {
				y.eventually("it runs anew", func() bool {
					s := y.show("p").Status
					return s.State == product.Running && s.PID != old
				})
				y.eventually("there is one", func() bool { return processesOf(v.UID) == 2 })
			} else {
				y.eventually("it is gone", func() bool { return processesOf(v.UID) == 0 })
				y.eventually("nothing is kept", func() bool { return len(k.Holds()) == 0 })
			}
			y.stop()
			y.eventually("nothing is left", func() bool { return processesOf(v.UID) == 0 && len(k.Holds()) == 0 })
		})
	}
}

// A stream may be cut within a frame, a product that does not know Resume cannot go on: both end with their agent.
func TestLeave_ends_what_cannot_go_on(t *testing.T) {
	y, k := keptYard(t, nil)
	y.host.silent["old"] = true
	y.run()
	uids := []uint32{y.install("old", "1", "sleep", "").UID, y.install("stream", "1", "sleep", "transport = \"stream\"\n").UID}
	y.leave()
	for _, uid := range uids {
		if n := processesOf(uid); n != 0 {
			t.Errorf("%d processes of user %d are left", n, uid)
		}
	}
	if names := k.Holds(); len(names) != 0 {
		t.Errorf("kept: %v", names)
	}
}

// A keeper that takes nothing is said, and the product runs as it would without one.
func TestKeeper_that_fails(t *testing.T) {
	y, k := keptYard(t, nil)
	k.Fail(errors.New("no room"))
	y.run()
	v := y.install("p", "1", "sleep", "")
	y.eventually("it is said", func() bool {
		e := y.healthOf("product.p.kept")
		return e.Status == health.Degraded && strings.Contains(e.Summary, "no room") && e.Remedy != ""
	})
	if s := y.show("p").Status; s.State != product.Running {
		t.Errorf("%+v", s)
	}
	y.leave()
	if n := processesOf(v.UID); n != 0 {
		t.Errorf("%d processes are left", n)
	}
}

const (
	keptBase = "BAILEY_TEST_KEPT_BASE"
	keptUID  = "BAILEY_TEST_KEPT_UID"
)

// TestKeptAgentProcess is no test but an agent whose keeper is the test that started it: descriptor 3.
func TestKeptAgentProcess(t *testing.T) {
	base := os.Getenv(keptBase)
	if base == "" {
		return
	}
	k := keepertest.Dial(3)
	var uid uint32
	if _, err := fmt.Sscan(os.Getenv(keptUID), &uid); err != nil {
		t.Fatal(err)
	}
	y := &yard{t: t, base: base, host: newHost(), health: health.NewRegistry(), stop: func() {}}
	y.cfg = yardConfig(base)
	y.cfg.Host, y.cfg.Health, y.cfg.Keeper, y.cfg.UIDBase = y.host, y.health, k, uid
	y.cfg.Emit = func(e *event.Event) { k.Tell(e.Product.State) }
	y.open()
	k.Tell("go")
	_ = y.m.Run(t.Context())
}

// agent starts an agent in a process of its own.
func (y *yard) agent(k *keepertest.Keeper, uid uint32) *exec.Cmd {
	y.t.Helper()
	return k.Start(y.t, []string{keptBase + "=" + y.base, fmt.Sprintf("%s=%d", keptUID, uid)}, os.Args[0], "-test.run=^TestKeptAgentProcess$")
}

func kill(t *testing.T, agent *exec.Cmd) {
	t.Helper()
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
}

// SIGKILL of the agent leaves its products alone, and each next agent goes on with the same process.
func TestAgent_killed_leaves_its_products_to_the_next(t *testing.T) {
	y, k := keptYard(t, nil)
	v := y.install("speaker", "1", "speak", "")
	var agent atomic.Int64
	keepertest.ReapAlways(t, func() []int { return []int{int(agent.Load())} })
	var first int
	var took []time.Duration
	for round := range 6 {
		a := y.agent(k, v.UID)
		agent.Store(int64(a.Process.Pid))
		k.Await(t, "go")
		began := time.Now()
		k.Await(t, "running")
		if round > 0 {
			took = append(took, time.Since(began))
		}
		y.eventually("all is kept", func() bool { return slices.Contains(k.Holds(), "product/speaker/alive") })
		pids := pidsOf(v.UID)
		if first == 0 {
			first = pids[0]
		}
		if len(pids) != 2 || pids[0] != first {
			t.Errorf("round %d: processes %v, the first was %d", round, pids, first)
		}
		kill(t, a)
	}
	slices.Sort(took)
	t.Logf("from the start of the manager to the running product: %v", took)

	// And one in this process, to talk to it.
	y.successor()
	y.run()
	y.running("speaker")
	y.say("speaker", "still there")
	y.stop()
	y.eventually("nothing is left", func() bool { return processesOf(v.UID) == 0 })
}

// With the keeper dead as well nobody holds the products' pipes: they end.
func TestAgent_and_keeper_killed_take_the_products_with_them(t *testing.T) {
	y, k := keptYard(t, nil)
	v := y.install("stubborn", "1", "stubborn", "")
	a := y.agent(k, v.UID)
	keepertest.ReapAlways(t, func() []int { return []int{a.Process.Pid} })
	k.Await(t, "running")
	y.eventually("all is kept", func() bool { return slices.Contains(k.Holds(), "product/stubborn/alive") })
	kill(t, a)
	if n := processesOf(v.UID); n != 2 {
		t.Errorf("%d processes with a keeper", n)
	}
	k.Die()
	y.eventually("the product is gone", func() bool { return processesOf(v.UID) == 0 })
	y.run()
	y.running("stubborn")
	y.stop()
}

// Wherever an agent is killed while it starts a product or takes it over, the next one finds a product that it can take over, or
// none: in the end one instance runs.
func TestAgent_killed_at_random_moments_leaves_one_instance(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 10
	}
	y, k := keptYard(t, nil)
	v := y.install("sleeper", "1", "sleep", "")
	var agent atomic.Int64
	keepertest.ReapAlways(t, func() []int { return []int{int(agent.Load())} })
	seen := map[int]bool{}
	fresh := 0
	for round := range rounds {
		a := y.agent(k, v.UID)
		agent.Store(int64(a.Process.Pid))
		k.Await(t, "go")
		<-time.After(rand.N(60 * time.Millisecond))
		kill(t, a)
		y.eventually("a product that is not kept has ended", func() bool { // what the agent said last may still be under way
			return processesOf(v.UID) == 0 || slices.Contains(k.Holds(), "product/sleeper/alive")
		})
		if round%3 == 2 { // the next one starts it again: killed while it starts, not only while it takes over
			for _, pid := range pidsOf(v.UID) {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			fresh++
		}
		for _, pid := range pidsOf(v.UID) {
			seen[pid] = true
		}
	}
	t.Logf("%d agents killed, the product killed %d times, %d of its processes outlived an agent", rounds, fresh, len(seen))
	if len(seen) == 0 {
		t.Error("no product ever outlived its agent: the moments were all too early")
	}
	y.successor()
	y.run()
	y.running("sleeper")
	y.kept("sleeper")
	if pids := pidsOf(v.UID); len(pids) != 2 {
		t.Errorf("processes %v, want one instance", pids)
	}
	y.stop()
	y.eventually("nothing is left", func() bool { return processesOf(v.UID) == 0 && len(k.Holds()) == 0 })
}
