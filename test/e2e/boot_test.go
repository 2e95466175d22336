package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"bailey/agent/boot"
	"bailey/agent/keeper"
	"bailey/agent/sensor/process"
	controlv1 "bailey/api/control/v1"
	"bailey/test/rig"

	"connectrpc.com/connect"
)

// quickBoots is a machine whose boots are good after two seconds.
const quickBoots = "[boot]\ngood_after = \"2s\"\n"

// powerCut ends the agent as a power cut would, and makes the boot that it ran in one of before: the next start is in another.
func powerCut(a *rig.Agent) {
	a.T.Helper()
	a.Kill()
	reboot(a)
}

// reboot makes the boot in course one of before.
func reboot(a *rig.Agent) {
	a.T.Helper()
	r, err := boot.Read(a.State)
	if r.Boot == "" {
		a.T.Fatalf("the agent remembers no boot: %+v", r)
	}
	r.Boot = "of before"
	if err := errors.Join(err, boot.Write(a.State, r)); err != nil {
		a.T.Fatal(err)
	}
}

// goodBoot waits until the boot counts as good with a release of a product in force.
func goodBoot(a *rig.Agent, product, version string) {
	a.T.Helper()
	a.Eventually("the boot is good with "+product+" "+version, 20*time.Second, func() error {
		b := a.Status().GetBoot()
		if !b.GetGood() || !strings.HasPrefix(b.GetLastGood()[product], version+"-") {
			return fmt.Errorf("it is %v", b)
		}
		return nil
	})
}

// runs waits until a release of a product runs.
func runs(a *rig.Agent, product, version string) {
	a.T.Helper()
	a.Running(product)
	if p := a.Product(product); !strings.HasPrefix(p.GetRelease(), version+"-") {
		a.T.Errorf("%s: %s runs, not %s", product, p.GetRelease(), version)
	}
}

// isSafe fails unless nothing runs and nobody is asked.
func isSafe(a *rig.Agent, product, evil string) {
	a.T.Helper()
	s := a.Status()
	if s.GetBoot().GetSafe() == "" || s.GetBoot().GetLeave() == "" {
		a.T.Fatalf("it is not in safe mode: %v", s.GetBoot())
	}
	if p := a.Product(product); p.GetState() != "stopped" || !strings.HasPrefix(p.GetReason(), "off: safe mode: ") || p.GetPid() != 0 {
		a.T.Errorf("the product is %v", p)
	}
	asked := s.GetQuestions().GetAsked()
	if err := execs(evil); err != nil {
		a.T.Errorf("what the product would deny: %v", err)
	}
	if n := a.Status().GetQuestions().GetAsked(); n != asked {
		a.T.Errorf("%d questions were asked", n-asked)
	}
	h := a.Health("boot")
	if h.GetStatus() != "failed" || !strings.Contains(h.GetSummary(), "safe mode") || !strings.Contains(h.GetRemedy(), "reboot") {
		a.T.Errorf("health says %v", h)
	}
	if out, err := a.Bailey("product", "start", product); err == nil || !strings.Contains(out, "no product is started now: safe mode: ") || !strings.Contains(out, "bailey boot") {
		a.T.Errorf("product start: %v: %s", err, out)
	}
}

// TestUncleanBoots: the first takes a change back, an orderly end does not count, and three in a row are safe mode, where records can still be
// changed; the operator leaves it.
func TestUncleanBoots(t *testing.T) {
	a := rig.Start(t, built, quickBoots)
	evil := a.Program("evil")
	a.Install(engine("1.0.0", goodContent, map[string]string{"deny_path": evil}))
	goodBoot(a, "engine", "1.0.0")
	a.Must("product", "install", a.Folder(engine("1.1.0", goodContent, map[string]string{"deny_path": evil})), "--yes")
	powerCut(a)
	a.Start()
	runs(a, "engine", "1.0.0")
	if b := a.Status().GetBoot(); b.GetUnclean() != 1 || len(b.GetBack()) != 1 || !strings.HasPrefix(b.GetBack()[0].GetFrom(), "1.1.0-") || !strings.HasPrefix(b.GetBack()[0].GetTo(), "1.0.0-") {
		t.Errorf("boots: %v", b)
	}
	if h := a.Health("boot"); h.GetStatus() != "degraded" || !strings.Contains(h.GetSummary(), "engine went back from 1.1.0-") {
		t.Errorf("health says %v", h)
	}
	if out := a.Must("journal", "--kind", "boot"); !strings.Contains(out, "1.1.0-") {
		t.Errorf("the journal has %s", out)
	}
	a.Stop()
	reboot(a)
	a.Start()
	if b := a.Status().GetBoot(); b.GetUnclean() != 1 || b.GetSafe() != "" {
		t.Errorf("an orderly end counts: %v", b)
	}

	for range 2 {
		powerCut(a)
		a.Start()
	}
	isSafe(a, "engine", evil)
	if out := a.Must("status"); !strings.Contains(out, "SAFE MODE: 3 boots in a row did not end well") {
		t.Errorf("status says %s", out)
	}
	a.Must("product", "install", a.Folder(engine("1.2.0", goodContent, map[string]string{"deny_path": evil})), "--yes")
	a.Kill() // the agent alone: the boot goes on, and with it safe mode
	a.Start()
	isSafe(a, "engine", evil)

	a.Must("boot", "good")
	runs(a, "engine", "1.2.0")
	a.Eventually("it protects again", 10*time.Second, func() error { return refusal(execs(evil)) })
	goodBoot(a, "engine", "1.2.0")
	if h := a.Health("boot"); h.GetStatus() != "ok" {
		t.Errorf("health says %v", h)
	}
}

// safeAfter is an agent that came into safe mode, whose last boots ended with that many power cuts, and what its product would deny.
func safeAfter(t *testing.T, cuts int) (a *rig.Agent, evil string) {
	t.Helper()
	a = rig.Start(t, built, quickBoots)
	evil = a.Program("evil")
	a.Install(engine("1.0.0", goodContent, map[string]string{"deny_path": evil}))
	for range cuts {
		powerCut(a)
		a.Start()
	}
	isSafe(a, "engine", evil)
	return a, evil
}

// TestSensorsOff: where boots in safe mode do not end well either, the next agent leaves the sensors off, says so, and has the rest; the operator brings
// them back.
func TestSensorsOff(t *testing.T) {
	a, evil := safeAfter(t, 5)
	if b := a.Status().GetBoot(); b.GetSensorsOff() != "" || a.Health(process.Component).GetStatus() != "ok" {
		t.Fatalf("too early: %v, %v", b, a.Health(process.Component))
	}
	powerCut(a)
	a.Start()
	isSafe(a, "engine", evil)
	if h := a.Health(process.Component); h.GetStatus() != "degraded" {
		t.Errorf("the process sensor is %v", h)
	}
	if out := a.Must("status"); !strings.Contains(out, "SAFE MODE WITHOUT SENSORS: ") || !strings.Contains(out, "upgrade bailey or the kernel") {
		t.Errorf("status says %s", out)
	}
	if out := a.Must("journal", "--kind", "boot"); !strings.Contains(out, "sensors_off") {
		t.Errorf("the journal has %s", out)
	}
	tap := a.Tap("exec")
	if err := execs(evil); err != nil {
		t.Error(err)
	}
	time.Sleep(2 * time.Second) // /proc is not read either
	if seen := tap.All(); len(seen) > 0 {
		t.Errorf("something is seen: %v", seen)
	}

	a.Must("boot", "good")
	if h := a.Health("boot"); h.GetStatus() != "failed" || !strings.Contains(h.GetRemedy(), "start the agent again") {
		t.Errorf("health says %v", h)
	}
	a.Stop()
	a.Start()
	runs(a, "engine", "1.0.0")
	a.Eventually("it protects again", 10*time.Second, func() error { return refusal(execs(evil)) })
}

// TestEverybodyIsToldToEnd: at a shutdown systemd tells every process at once, and the keeper tells the agent again. That is an end in order.
func TestEverybodyIsToldToEnd(t *testing.T) {
	a := startAgent(t, "")
	a.Install(engine("1.0.0", goodContent, nil))
	kept, err := keeper.ReadState(a.Run)
	if err != nil {
		t.Fatal(err)
	}
	product := a.Product("engine").GetPid()
	for _, pid := range []int{int(product), kept.Agent} {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(5 * time.Millisecond) // the agent has heard it, and has not ended
	a.Stop()                         // tells the keeper
	if r, err := boot.Read(a.State); err != nil || !r.Ended {
		t.Errorf("the boot did not end in order: %+v, %v", r, err)
	}
}

// TestSafeModeIsLeftByARemedy: a release that is put in force in safe mode runs in the next boot.
func TestSafeModeIsLeftByARemedy(t *testing.T) {
	a, evil := safeAfter(t, 3)
	a.Stop()
	reboot(a)
	a.Start()
	isSafe(a, "engine", evil)
	a.Must("product", "install", a.Folder(engine("1.1.0", goodContent, map[string]string{"deny_path": evil})), "--yes")
	a.Stop()
	reboot(a)
	a.Start()
	runs(a, "engine", "1.1.0")
	goodBoot(a, "engine", "1.1.0")
}

// TestRecover: from a rescue shell; while the agent runs it is refused.
func TestRecover(t *testing.T) {
	a := rig.Start(t, built, quickBoots)
	evil := a.Program("evil")
	a.Install(engine("1.0.0", goodContent, map[string]string{"deny_path": evil}))
	a.Must("product", "install", a.Folder(engine("1.1.0", goodContent, map[string]string{"deny_path": evil})), "--yes")
	if out, err := a.Bailey("recover", "--state", a.State, "--all-off"); err == nil || !strings.Contains(out, "an agent works on the state") {
		t.Errorf("with an agent: %v: %s", err, out)
	}
	a.Stop()
	reboot(a)
	a.Must("recover", "--state", a.State, "--safe")
	a.Start()
	isSafe(a, "engine", evil)
	a.Stop()
	reboot(a)
	a.Must("recover", "--state", a.State, "--product", "engine", "--back")
	a.Start()
	runs(a, "engine", "1.0.0")
	a.Stop()
	a.Must("recover", "--state", a.State, "--all-off")
	a.Start()
	if p := a.Product("engine"); p.GetState() != "stopped" {
		t.Errorf("the product is %v", p)
	}
	a.Must("product", "start", "engine")
	runs(a, "engine", "1.0.0")
}

// TestUpdatesAndBoots: a stream sees that the machine took its release back, and in safe mode the recovery policy is obeyed and a remedy put in place.
func TestUpdatesAndBoots(t *testing.T) {
	const content = "content"
	a, v := followed(t, quickBoots, "shadow = \"0s\"\nwatch = \"1s\"", engine("1.0.0", goodContent, nil), "engine/content")
	goodBoot(a, "engine", "1.0.0")
	first := a.Product("engine").GetRelease()
	bad := func(version string) string {
		t.Helper()
		s := a.Stream("engine/content")
		for _, o := range s.GetOffers() {
			if o.GetVersion() == version {
				return o.GetBad()
			}
		}
		return ""
	}

	// It was committed, and the boot was not good yet with it.
	v.Content("engine", "1", goodContent+"prefix /nowhere/a\n")
	reaches(a, content, "1", "committed")
	powerCut(a)
	a.Start()
	s := reaches(a, content, "1", "rolled_back")
	if p := a.Product("engine"); p.GetRelease() != first || !strings.Contains(s.GetUpdate().GetReason(), "the machine went back to "+first+" by itself") {
		t.Errorf("%v is in force, and the stream says %v", p, s)
	}
	a.Eventually("it is not tried again", 20*time.Second, func() error {
		if why := bad("1"); !strings.Contains(why, "by itself") {
			return fmt.Errorf("of the offer is said %q", why)
		}
		return nil
	})
	goodBoot(a, "engine", "1.0.0")

	// It does harm late: every boot ends early, three times.
	v.Content("engine", "2", goodContent+"prefix /nowhere/b\n")
	reaches(a, content, "2", "committed")
	second := a.Product("engine").GetRelease()
	a.Eventually("the boot is good with it", 20*time.Second, func() error {
		if b := a.Status().GetBoot(); !b.GetGood() || b.GetLastGood()["engine"] != second {
			return fmt.Errorf("it is %v", b)
		}
		return nil
	})
	powerCut(a)
	for range 3 {
		a.Start()
		powerCut(a)
	}
	a.Start()
	isSafe(a, "engine", a.Program("nobody-minds"))
	if p := a.Product("engine"); p.GetRelease() != second {
		t.Errorf("%v is in force", p)
	}

	// The vendor finds out, and says so.
	v.Disable("engine/content", "2", "it does harm")
	s = reaches(a, content, "2", "rolled_back")
	if p := a.Product("engine"); p.GetRelease() != first || p.GetPid() != 0 || !strings.Contains(s.GetUpdate().GetReason(), "the recovery policy disables it: it does harm") {
		t.Errorf("%v is in force, and the stream says %v", p, s)
	}
	// And has a remedy, which is watched once it runs.
	v.Content("engine", "3", goodContent+"prefix /nowhere/c\n")
	reaches(a, content, "3", "watch")
	a.Eventually("nothing can be said about it", 10*time.Second, func() error {
		if u := a.Stream("engine/content").GetUpdate(); u.GetState() != "watch" || u.GetReason() != "no product runs now" {
			return fmt.Errorf("%v", u)
		}
		return nil
	})
	third := a.Product("engine").GetRelease()
	a.Stop()
	reboot(a)
	a.Start()
	a.Running("engine")
	if p := a.Product("engine"); p.GetRelease() != third || third == first || third == second {
		t.Errorf("%v is in force, not %s", p, third)
	}
	reaches(a, content, "3", "committed")
}

// TestRestartsWhileWatched: that the agent ended and began anew is no harm that a release does.
func TestRestartsWhileWatched(t *testing.T) {
	const content = "content"
	a, v := followed(t, quickBoots, "shadow = \"0s\"\nwatch = \"20s\"", engine("1.0.0", goodContent, nil), "engine/content")
	v.Content("engine", "1", goodContent+"prefix /nowhere/a\n")
	reaches(a, content, "1", "watch")
	for range 2 {
		a.Stop()
		reboot(a)
		a.Start()
		a.Running("engine")
		if u := a.Stream("engine/content").GetUpdate(); u.GetState() != "watch" {
			t.Fatalf("%v", u)
		}
	}
	reaches(a, content, "1", "committed")
}

// TestBootGoodOverTheAPI: it is an action, and the answer is how boots go.
func TestBootGoodOverTheAPI(t *testing.T) {
	a := rig.Start(t, built, quickBoots)
	r, err := a.Client.BootGood(context.Background(), connect.NewRequest(&controlv1.BootGoodRequest{}))
	if err != nil || r.Msg.GetBoot().GetUnclean() != 0 || r.Msg.GetBoot().GetSafeAfter() != 3 {
		t.Errorf("%v, %v", r, err)
	}
	if out := a.Must("journal", "--kind", "operator"); !strings.Contains(out, "BootGood") {
		t.Errorf("the journal has %s", out)
	}
}
