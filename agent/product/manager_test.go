package product_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/product"
)

func TestInstall_runs_contained_and_Stop_leaves_nothing(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	v := y.install("sleeper", "1", "sleep", "[settings]\nmode = \"a\"\nlevel = \"1\"\n")
	if v.Status.State != product.Running || v.Status.PID == 0 || v.UID != testUIDs {
		t.Fatalf("got %+v", v)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.Status.PID))
	if err != nil || !strings.Contains(string(b), fmt.Sprintf("Uid:\t%d", v.UID)) {
		t.Errorf("pid %d is not the product: %v", v.Status.PID, err)
	}
	if inst, _ := y.host.last("sleeper"); inst.PID != v.Status.PID || inst.Settings["mode"] != "a" || !inst.Grants.Live || inst.Transport != "seqpacket" {
		t.Errorf("instance %+v", inst)
	}
	if v, err = y.m.Set(t.Context(), "sleeper", map[string]string{"mode": "b"}); err != nil || v.Status.Restarts != 1 {
		t.Errorf("got %+v, %v", v.Status, err)
	}
	if inst, _ := y.host.last("sleeper"); inst.Settings["mode"] != "b" || inst.Settings["level"] != "1" {
		t.Errorf("settings %v", inst.Settings)
	}
	if _, err := y.m.Set(t.Context(), "sleeper", map[string]string{"mood": "b"}); err == nil || !strings.Contains(err.Error(), "known: [level mode]") {
		t.Errorf("an unknown setting: %v", err)
	}
	if v, err = y.m.Stop(t.Context(), "sleeper"); err != nil || v.Status.State != product.Stopped || v.Enabled {
		t.Errorf("got %+v, %v", v, err)
	}
	if v, err = y.m.Start(t.Context(), "sleeper"); err != nil || v.Status.State != product.Running {
		t.Errorf("got %+v, %v", v, err)
	}
	if err := y.m.Remove(t.Context(), "sleeper", true); err != nil {
		t.Error(err)
	}
	if _, err := y.m.Show("sleeper"); !errors.Is(err, product.ErrUnknown) {
		t.Errorf("got %v", err)
	}
	y.stop()
	if left, err := os.ReadDir(filepath.Join(y.cfg.State, "products")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	var states []string
	for _, e := range y.events {
		states = append(states, e.State+"/"+e.Authority)
	}
	if got := strings.Join(states, " "); !strings.HasPrefix(got, "starting/off running/live stopping/off starting/off running/live stopping/off stopped/off starting/off") {
		t.Errorf("events %s", got)
	}
}

func TestKill9_is_followed_by_a_restart_and_touches_no_other(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	y.install("victim", "1", "sleep", "")
	other := y.install("other", "1", "sleep", "")
	if other.UID == y.show("victim").UID {
		t.Error("two products share a user")
	}
	old := y.show("victim").Status.PID
	if err := unix.Kill(old, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	y.eventually("it runs again", func() bool {
		s := y.show("victim").Status
		return s.State == product.Running && s.PID != old && s.Restarts == 1
	})
	if s := y.show("other").Status; s.PID != other.Status.PID || s.Restarts != 0 {
		t.Errorf("the other product: %+v", s)
	}
}

func TestEnd_of_any_kind_is_a_restart_and_at_last_a_crash_loop(t *testing.T) {
	tests := []struct{ attempt, reason, more string }{
		{"exit 0", "exited with status 0", ""},
		{"exit 3", "exited with status 3", ""},
		{"crash", "signal 11|exited with status 2", ""}, // Go turns SIGSEGV into a panic
		{"eat_memory 200", "out of memory: the limit is 64MiB", "[limits]\nmemory = \"64MiB\"\n"},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.attempt, " ", "_"), func(t *testing.T) {
			told := make(chan string, 1)
			y := newYard(t, func(c *product.Config) { c.OnCrashLoop = func(name, bad, back string) { told <- name + " " + back } })
			y.run()
			y.install("crasher", "1", tt.attempt, tt.more)
			y.eventually("it is off", func() bool { return y.show("crasher").Status.State == product.Failed })
			v := y.show("crasher")
			if v.Status.Restarts != 3 || !matches(v.Status.Reason, tt.reason) || !strings.Contains(v.Status.Reason, "4 times") {
				t.Errorf("got %+v", v.Status)
			}
			if e := y.healthOf("product.crasher"); e.Status != health.Failed || e.Remedy == "" {
				t.Errorf("health %+v", e)
			}
			if got := <-told; got != "crasher " {
				t.Errorf("told %q", got)
			}
			// An operator's start is a new chance.
			if _, err := y.m.Start(t.Context(), "crasher"); err != nil {
				t.Error(err)
			}
			y.eventually("it is off again", func() bool { s := y.show("crasher").Status; return s.State == product.Failed && s.Restarts > 3 })
			if v, err := y.m.Stop(t.Context(), "crasher"); err != nil || v.Status.State != product.Stopped || y.healthOf("product.crasher").Status != health.OK {
				t.Errorf("stopped: %+v, %v", v.Status, err)
			}
		})
	}
}

// A product without processor time is said to lack it, by health, event and status, until it has what it needs.
func TestStrain_is_said_and_is_over(t *testing.T) {
	y := newYard(t, func(c *product.Config) { c.Poll = 1500 * time.Millisecond })
	y.run()
	y.install("busy", "1", "spin 10000", "[limits]\ncpu = 0.1\n")
	const why = "at its limit of 0.1 processors"
	y.eventually("it is short of processor time", func() bool {
		e := y.healthOf("product.busy.resources")
		return e.Status == health.Degraded && strings.Contains(e.Summary, why) && e.Remedy != "" && strings.Contains(y.show("busy").Status.Strain, why)
	})
	if got := y.m.Strain("busy"); !strings.Contains(got, why) {
		t.Errorf("Strain says %q", got)
	}
	told := func(text string) bool {
		y.mu.Lock()
		defer y.mu.Unlock()
		return slices.ContainsFunc(y.events, func(d event.ProductDetail) bool { return d.State == "running" && strings.Contains(d.Reason, text) })
	}
	if !told(why) {
		t.Error("no event says so")
	}
	if _, err := y.m.Stop(t.Context(), "busy"); err != nil {
		t.Fatal(err)
	}
	if e := y.healthOf("product.busy.resources"); e.Status != health.OK || y.show("busy").Status.Strain != "" || y.m.Strain("busy") != "" {
		t.Errorf("stopped, and still short: %+v", e)
	}
	y.install("busy", "2", "sleep", "[limits]\ncpu = 0.1\n")
	if y.m.Strain("busy") != "" || y.m.Strain("nobody") != "" {
		t.Error("a product that sleeps lacks nothing")
	}
}

func TestSet_of_an_empty_value_restores_the_manifests(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	y.install("sleeper", "1", "sleep", "[settings]\nmode = \"a\"\n")
	for _, step := range []struct{ value, want string }{{"b", "b"}, {"", "a"}} {
		if _, err := y.m.Set(t.Context(), "sleeper", map[string]string{"mode": step.value}); err != nil {
			t.Fatal(err)
		}
		if inst, _ := y.host.last("sleeper"); inst.Settings["mode"] != step.want {
			t.Errorf("after mode=%q the product has %q, want %q", step.value, inst.Settings["mode"], step.want)
		}
	}
	y.stop()
}

func matches(got, want string) bool {
	return slices.ContainsFunc(strings.Split(want, "|"), func(w string) bool { return strings.Contains(got, w) })
}

func TestCrashLoop_goes_back_to_the_last_good_release_and_its_grants(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	good := y.install("p", "1", "sleep", "[request]\nsee = [\"exec\"]\n")
	y.install("p", "2", "exit 1", "[request]\nsee = [\"exit\"]\n")
	y.eventually("the old release runs", func() bool {
		v := y.show("p")
		return v.Release == good.Release && v.Status.State == product.Running
	})
	if v := y.show("p"); !slices.Contains(v.Grants.Items(), "see:exec") || slices.Contains(v.Grants.Items(), "see:exit") || v.Manifest.Version != "1" {
		t.Errorf("got %v, version %s", v.Grants.Items(), v.Manifest.Version)
	}
}

func TestStop_of_a_product_that_ignores_it(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	y.install("stubborn", "1", "stubborn", "")
	y.eventually("it is ready", func() bool { return strings.Contains(y.logText("stubborn"), "ready") })
	began := time.Now()
	v, err := y.m.Stop(t.Context(), "stubborn")
	if took := time.Since(began); err != nil || v.Status.State != product.Stopped || took < y.cfg.StopTimeout || took > 3*y.cfg.StopTimeout {
		t.Errorf("took %v, %+v, %v", took, v.Status, err)
	}
}

func TestForkBomb_is_stopped_whole(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	v := y.install("bomb", "1", "fork_bomb", "")
	y.eventually("it is at its limit", func() bool { return processesOf(v.UID) > 5 })
	if _, err := y.m.Stop(t.Context(), "bomb"); err != nil {
		t.Error(err)
	}
	if n := processesOf(v.UID); n != 0 {
		t.Errorf("%d processes are left", n)
	}
}

// processesOf counts the living processes of a user: an orphan's zombie is its new parent's affair.
func processesOf(uid uint32) int { return len(pidsOf(uid)) }

// pidsOf lists the living processes of a user, in order.
func pidsOf(uid uint32) (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		var st unix.Stat_t
		b, err := os.ReadFile(d + "/status")
		if err == nil && unix.Stat(d, &st) == nil && strings.Contains(string(b), fmt.Sprintf("Uid:\t%d\t", uid)) && !strings.Contains(string(b), "\nState:\tZ") {
			if pid, err := strconv.Atoi(filepath.Base(d)); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	slices.Sort(pids)
	return pids
}

func TestLogFlood_is_bounded_counted_and_said(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	y.install("flood", "1", "flood 16", "[limits]\nlog = \"256KiB\"\ncpu = 1.0\n")
	y.eventually("lines are dropped", func() bool { return y.show("flood").Status.LinesDropped > 10_000 })
	var total int64
	for _, name := range []string{"log", "log.1"} {
		if st, err := os.Stat(filepath.Join(y.cfg.State, "products", "flood", name)); err == nil {
			total += st.Size()
		}
	}
	if total == 0 || total > 256<<10 {
		t.Errorf("%d bytes on disk", total)
	}
	if s := y.show("flood").Status; s.State != product.Running || s.Restarts != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestState_over_its_limit_becomes_read_only_until_more_is_granted(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	y.install("hoarder", "1", "grow_state", "[limits]\nstate = \"8MiB\"\n")
	y.eventually("it is read-only", func() bool {
		s := y.show("hoarder").Status
		return s.StateFull && s.State == product.Running && s.Restarts > 0
	})
	y.eventually("the product notices", func() bool { return strings.Contains(y.logText("hoarder"), "read-only file system") })
	if e := y.healthOf("product.hoarder.state"); e.Status != health.Degraded || !strings.Contains(e.Remedy, "state:N") {
		t.Errorf("health %+v", e)
	}
	if _, err := y.m.Grant(t.Context(), "hoarder", "state:1GiB"); err != nil {
		t.Fatal(err)
	}
	if s := y.show("hoarder").Status; s.StateFull {
		t.Errorf("still full: %+v", s)
	}
}

func TestProtocolFault_is_a_crash(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	y.install("liar", "1", "sleep", "")
	_, s := y.host.last("liar")
	s.end(errors.New("answered what was not asked"))
	y.eventually("it runs again", func() bool { st := y.show("liar").Status; return st.State == product.Running && st.Restarts == 1 })
	y.mu.Lock()
	defer y.mu.Unlock()
	if !slices.ContainsFunc(y.events, func(e event.ProductDetail) bool { return strings.Contains(e.Reason, "protocol fault: answered what") }) {
		t.Errorf("never said: %+v", y.events)
	}
	_ = unix.Shutdown(s.fd, unix.SHUT_RDWR)
}

func TestStart_failure_is_reported_with_its_reason(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	y.install("loose", "1", "sleep", "")
	if err := os.Chmod(filepath.Join(y.show("loose").Folder, "probe"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := y.m.Restart(t.Context(), "loose"); err != nil {
		t.Error(err)
	}
	y.eventually("it is off", func() bool { return y.show("loose").Status.State == product.Failed })
	if r := y.show("loose").Status.Reason; !strings.Contains(r, "execute ./probe: permission denied") {
		t.Errorf("got %q", r)
	}
}
