package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	controlv1 "bailey/api/control/v1"
	productv1 "bailey/api/product/v1"
	"bailey/test/rig"
)

// tree returns a process and all of its descendants.
func tree(t *testing.T, pid int) []int {
	t.Helper()
	out := []int{pid}
	for i := 0; i < len(out); i++ {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", out[i]))
		if err != nil {
			continue // gone meanwhile
		}
		for _, task := range tasks {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", out[i], task.Name()))
			if err != nil {
				continue
			}
			for _, w := range strings.Fields(string(text)) {
				if child, err := strconv.Atoi(w); err == nil {
					out = append(out, child)
				}
			}
		}
	}
	return out
}

func signal(t *testing.T, pids []int, s syscall.Signal) {
	t.Helper()
	for _, p := range pids {
		if err := syscall.Kill(p, s); err != nil {
			t.Errorf("signal %d: %v", p, err)
		}
	}
}

// untilAuthority waits until a product has an authority whose reason contains a text, and health agrees.
func untilAuthority(a *rig.Agent, name, authority, reason, component, health string, within time.Duration) *controlv1.Product {
	a.T.Helper()
	var p *controlv1.Product
	a.Eventually(name+" is "+authority, within, func() error {
		p = a.Product(name)
		h := a.Health("product." + name + "." + component)
		switch {
		case p.GetAuthority() != authority || !strings.Contains(p.GetAuthorityReason(), reason) || p.GetAuthoritySince() == 0:
			return fmt.Errorf("status says %s since %d: %q", p.GetAuthority(), p.GetAuthoritySince(), p.GetAuthorityReason())
		case h.GetStatus() != health || health != "ok" && h.GetRemedy() == "":
			return fmt.Errorf("health says %v", h)
		}
		return nil
	})
	return p
}

// A stopped product costs three programs their time, then nobody; when it goes on it is live again by itself, and every step
// is told.
func TestStoppedProductIsDegradedAndReturns(t *testing.T) {
	a := startAgent(t, "[questions]\nexec_deadline = \"250ms\"\n")
	a.Install(rig.Spec{Name: "frozen", Questions: "exec"})
	states := a.Tap("product")
	p := a.Program("works")
	pids := tree(t, int(a.Product("frozen").GetPid()))
	signal(t, pids, syscall.SIGSTOP)
	goOn := true
	t.Cleanup(func() {
		if goOn {
			signal(t, pids, syscall.SIGCONT)
		}
	})
	start, waited := time.Now(), 0
	for i := range 20 {
		before := time.Now()
		if err := execs(p); err != nil {
			t.Fatalf("exec %d: %v", i, err)
		}
		if time.Since(before) >= 200*time.Millisecond {
			waited++
		}
	}
	// Others use this machine's processors too: an exec may take its time without having waited for the product.
	if waited < 3 || waited > 8 {
		t.Errorf("%d of 20 programs waited for a stopped product, want 3", waited)
	}
	untilAuthority(a, "frozen", "degraded", "missed 3 questions in a row", "authority", "degraded", 10*time.Second)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %s to see that it does not answer", took)
	}
	a.Find(states, "that it is degraded", func(e *productv1.Event) bool {
		return e.GetProduct().GetAuthority() == "degraded" && strings.Contains(e.GetProduct().GetReason(), "missed 3 questions in a row")
	})
	if out := a.Must("product", "show", "frozen"); !strings.Contains(out, "degraded, for ") || !strings.Contains(out, "missed 3") {
		t.Errorf("product show: %s", out)
	}
	if out := a.Must("status"); !strings.Contains(out, "missed 3 questions in a row") {
		t.Errorf("status does not say why: %s", out)
	}
	signal(t, pids, syscall.SIGCONT)
	goOn = false
	back := time.Now()
	untilAuthority(a, "frozen", "live", "", "authority", "ok", time.Minute)
	t.Logf("back after %s", time.Since(back))
	a.Find(states, "that it is live", func(e *productv1.Event) bool {
		return e.GetProduct().GetAuthority() == "live" && strings.Contains(e.GetProduct().GetReason(), "no miss in")
	})
	before := a.Product("frozen").GetCounters()
	if err := execs(p); err != nil {
		t.Fatal(err)
	}
	if now := a.Product("frozen").GetCounters(); now.GetAnswers() == before.GetAnswers() {
		t.Error("it is live and was not asked")
	}
}

// A product that reads its events too slowly is said to lose some, and to have recovered.
func TestSlowReaderIsSaid(t *testing.T) {
	a := startAgent(t, "")
	a.Install(rig.Spec{Name: "slow", Events: "create,unlink,close_write"})
	states := a.Tap("product")
	pids := tree(t, int(a.Product("slow").GetPid()))
	signal(t, pids, syscall.SIGSTOP)
	stopped := true
	t.Cleanup(func() {
		if stopped {
			signal(t, pids, syscall.SIGCONT)
		}
	})
	path := a.Scratch + "/file"
	a.Eventually("it loses events", time.Minute, func() error {
		for range 5000 {
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		if n := a.Product("slow").GetCounters().GetLost(); n == 0 {
			return fmt.Errorf("none lost")
		}
		return nil
	})
	untilAuthority(a, "slow", "live", "loses events", "events", "degraded", 5*time.Second)
	signal(t, pids, syscall.SIGCONT)
	stopped = false
	untilAuthority(a, "slow", "live", "", "events", "ok", time.Minute)
	a.Find(states, "that it lost events", func(e *productv1.Event) bool { return strings.Contains(e.GetProduct().GetReason(), "loses events") })
	a.Find(states, "that it lost none any more", func(e *productv1.Event) bool {
		return strings.Contains(e.GetProduct().GetReason(), "lost no event in")
	})
}

// A product without processor time: that is why it is late, and it is said.
func TestStarvedProductSaysWhatItLacks(t *testing.T) {
	a := startAgent(t, "[questions]\nexec_deadline = \"100ms\"\n")
	a.Install(rig.Spec{Name: "busy", Questions: "exec", Limits: "cpu = 0.05\n",
		Settings: map[string]string{"fault": "spin", "at": "ready"}})
	p := a.Program("works")
	a.Eventually("it is short of processor time", time.Minute, func() error {
		for range 5 {
			if err := execs(p); err != nil {
				t.Fatal(err)
			}
		}
		h := a.Health("product.busy.resources")
		if h.GetStatus() != "degraded" || !strings.Contains(h.GetSummary(), "at its limit of 0.05 processors") || h.GetRemedy() == "" {
			return fmt.Errorf("health says %v", h)
		}
		if x := a.Product("busy"); x.GetAuthority() != "degraded" || !strings.Contains(x.GetAuthorityReason(), "missed") {
			return fmt.Errorf("authority %s: %s", x.GetAuthority(), x.GetAuthorityReason())
		}
		return nil
	})
}

// A product that eats its memory ends again and again, and is off with the reason; the others go on.
func TestProductOutOfMemoryIsOffWithTheReason(t *testing.T) {
	a := startAgent(t, "")
	a.Install(rig.Spec{Name: "other", Questions: "exec"})
	states := a.Tap("product")
	a.Install(rig.Spec{Name: "hungry", Questions: "exec", Limits: "memory = \"64MiB\"\n",
		Settings: map[string]string{"fault": "memory", "at": "ready"}})
	p := a.Program("works")
	a.Eventually("it is off", 2*time.Minute, func() error {
		if err := execs(p); err != nil {
			t.Fatal(err)
		}
		x := a.Product("hungry")
		if x.GetState() != "failed" || x.GetAuthority() != "off" || !strings.Contains(x.GetAuthorityReason(), "out of memory") || x.GetAuthoritySince() == 0 {
			return fmt.Errorf("%s, %s since %d: %s", x.GetState(), x.GetAuthority(), x.GetAuthoritySince(), x.GetAuthorityReason())
		}
		return nil
	})
	if h := a.Health("product.hungry"); h.GetStatus() != "failed" || !strings.Contains(h.GetSummary(), "out of memory") || h.GetRemedy() == "" {
		t.Errorf("health says %v", h)
	}
	a.Find(states, "that it is off", func(e *productv1.Event) bool {
		return e.GetProduct().GetProduct() == "hungry" && e.GetProduct().GetState() == "failed" && strings.Contains(e.GetProduct().GetReason(), "out of memory")
	})
	if x := a.Product("other"); x.GetState() != "running" || x.GetAuthority() != "live" || x.GetRestarts() != 0 {
		t.Errorf("the other product: %v", x)
	}
}
