package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	controlv1 "bailey/api/control/v1"
	"bailey/test/rig"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
)

// variant writes an agent of a version, with a fault, to path: see testdata/variant.
func variant(a *rig.Agent, path, version, fault string) {
	a.T.Helper()
	text, err := os.ReadFile(filepath.Join(built, "variant"))
	if err == nil {
		err = os.WriteFile(path, fmt.Appendf(text, "\n%s %s\n", version, fault), 0o755)
	}
	if err != nil {
		a.T.Fatal(err)
	}
}

const ownStream = "bailey/agent/code"

// ownVendor makes a repository of releases of the agent itself, and has the agent, which is version 1.0.0, follow it. more is added
// to its configuration.
func ownVendor(a *rig.Agent, watch, more string) *rig.Vendor {
	a.T.Helper()
	a.Exe = filepath.Join(a.Dir, "bailey")
	variant(a, a.Exe, "1.0.0", "none")
	v := a.Vendor(ownStream)
	a.WriteConfig(keeperConfig + more + v.Config(fmt.Sprintf("watch = %q", watch), ownStream))
	return v
}

// offer offers an agent.
func offer(v *rig.Vendor, a *rig.Agent, version, fault string) {
	a.T.Helper()
	folder := filepath.Join(a.Dir, "agent-"+version)
	if err := os.Mkdir(folder, 0o755); err != nil {
		a.T.Fatal(err)
	}
	variant(a, filepath.Join(folder, "bailey"), version, fault)
	v.Publish(ownStream, version, folder)
}

// ownReaches waits until a version of the agent is in a state. Who is to say so can be between two agents.
func ownReaches(a *rig.Agent, version, state string) *controlv1.UpdateStream {
	a.T.Helper()
	a.Must("update", "check")
	s := &controlv1.UpdateStream{}
	a.Eventually(fmt.Sprintf("the agent %s is %s", version, state), 60*time.Second, func() error {
		text, err := a.Bailey("update", "show", ownStream, "--json")
		if err == nil {
			err = protojson.Unmarshal([]byte(text), s)
		}
		if u := s.GetUpdate(); err == nil && (u.GetVersion() != version || u.GetState() != state) {
			err = fmt.Errorf("%s is %s: %s; %s %s", u.GetVersion(), u.GetState(), u.GetReason(), s.GetWaiting(), s.GetProblem())
		}
		return err
	})
	return s
}

// runs waits until an agent of a version serves.
func runsAgent(a *rig.Agent, version string) {
	a.T.Helper()
	a.Eventually(version+" runs", 20*time.Second, func() error {
		r, err := a.Client.Status(context.Background(), connect.NewRequest(&controlv1.StatusRequest{}))
		if err == nil && r.Msg.GetVersion() != version {
			err = fmt.Errorf("%s runs", r.Msg.GetVersion())
		}
		return err
	})
}

// TestTheAgentUpdatesItself: releases of the agent come in like those of products. A good one takes over with nobody left to wait and products that go on; one
// that does not start is refused in its rehearsal; one that crashes when it has taken over is gone back from; and a restart of the service begins with what is in force.
func TestTheAgentUpdatesItself(t *testing.T) {
	a := rig.New(t, built, "")
	v := ownVendor(a, "3s", "")
	a.Start()
	t.Cleanup(a.Stop)
	a.Install(rig.Spec{Name: "good", Questions: "exec,open"})
	product := a.Product("good")
	o := load(a, 4, 5*time.Millisecond)

	offer(v, a, "1.1.0", "none")
	s := ownReaches(a, "1.1.0", "committed")
	running := a.Status()
	if s.GetInstalled() != "1.1.0" || running.GetVersion() != "1.1.0" || !s.GetUpdate().GetRehearsal().GetPassed() {
		t.Errorf("%s runs, and the stream is %v", running.GetVersion(), s)
	}
	releases := filepath.Join(a.State, "agent/releases")
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", running.GetPid()))
	if err != nil || !strings.HasPrefix(exe, releases+"/1.1.0-") {
		t.Errorf("it runs %s, %v", exe, err)
	}
	longest, p99 := o.end()
	k := running.GetKeeper()
	t.Logf("%d opens, %d execs: longest %v, p99 %v; keeper %v", o.opens.Load(), o.execs.Load(), longest, p99, k)
	if n := o.failed.Load(); n > 0 || k.GetRestarts() > 0 {
		t.Errorf("%d operations failed, e.g. %v; the keeper counts %v", n, o.firstErr, k)
	}
	if p := a.Product("good"); p.GetPid() != product.GetPid() || p.GetRestarts() != 0 {
		t.Errorf("the product was %v and is %v", product, p)
	}

	offer(v, a, "1.2.0", "exit")
	s = ownReaches(a, "1.2.0", "refused")
	if why := s.GetUpdate().GetReason(); !strings.Contains(why, "rehearsal: it does not serve: it ended") || !strings.Contains(s.GetUpdate().GetRehearsal().GetLog(), "this agent never starts") {
		t.Errorf("refused because of %q, and it said %q", why, s.GetUpdate().GetRehearsal().GetLog())
	}
	if st := a.Status(); st.GetPid() != running.GetPid() {
		t.Errorf("another agent runs: %s", st.GetVersion())
	}

	offer(v, a, "1.3.0", "crash")
	s = ownReaches(a, "1.3.0", "rolled_back")
	t.Logf("rolled back: %s", s.GetUpdate().GetReason())
	runsAgent(a, "1.1.0")
	if p := a.Product("good"); p.GetPid() != product.GetPid() || p.GetRestarts() != 0 {
		t.Errorf("the product was %v and is %v", product, p)
	}
	if out := a.Must("update", "list"); !strings.Contains(out, "rolled_back") {
		t.Errorf("the list says %s", out)
	}

	// What is proven is started again.
	a.Stop()
	a.Start()
	runsAgent(a, "1.1.0")

	// The operator has the package's.
	a.Must("update", "rollback", ownStream)
	runsAgent(a, "1.0.0")
	ownReaches(a, "1.1.0", "rolled_back")
	if left, err := filepath.Glob(releases + "/1.[123].0-*"); err != nil || len(left) > 0 {
		t.Errorf("programs are left: %v, %v", left, err)
	}
}

// TestAnAgentThatIsNotProvenIsStartedAgain if it ended because it was told to, and not if everything ended at once, or if there is no agent in it any more: then the one
// before is.
func TestAnAgentThatIsNotProvenIsStartedAgain(t *testing.T) {
	a := rig.New(t, built, "")
	v := ownVendor(a, "1h", "")
	a.Start()
	t.Cleanup(a.Stop)

	offer(v, a, "1.1.0", "none")
	ownReaches(a, "1.1.0", "watch")
	a.Stop()
	a.Start()
	runsAgent(a, "1.1.0")
	a.Kill()
	a.Start()
	runsAgent(a, "1.0.0")
	if s := ownReaches(a, "1.1.0", "rolled_back"); !strings.Contains(s.GetUpdate().GetReason(), "it was not proven yet when") {
		t.Errorf("it went back: %s", s.GetUpdate().GetReason())
	}

	offer(v, a, "1.2.0", "none")
	s := ownReaches(a, "1.2.0", "watch")
	a.Stop()
	variant(a, filepath.Join(a.State, "agent/releases", s.GetUpdate().GetRelease(), "bailey"), "1.2.0", "exit")
	a.Start()
	runsAgent(a, "1.0.0")
	if s := ownReaches(a, "1.2.0", "rolled_back"); !strings.Contains(s.GetUpdate().GetReason(), "the keeper went back") {
		t.Errorf("it went back: %s", s.GetUpdate().GetReason())
	}
}
