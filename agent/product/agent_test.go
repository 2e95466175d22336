package product_test

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"bailey/agent/product"
)

const agentBase = "BAILEY_TEST_AGENT_BASE"

// TestAgentProcess is no test but the agent of TestAgent_killed: it runs products until it is killed.
func TestAgentProcess(t *testing.T) {
	base := os.Getenv(agentBase)
	if base == "" {
		return
	}
	y := newYard(t, func(c *product.Config) {
		c.State, c.Run, c.UIDBase = base+"/state", base+"/run", 1
	})
	y.run()
	<-t.Context().Done()
}

// SIGKILL of the agent ends its products at once, and the next agent on the same state cleans up and starts them.
func TestAgent_killed_takes_its_products_with_it(t *testing.T) {
	y := newYard(t, nil)
	uid := y.install("sleeper", "1", "sleep", "").UID
	y.install("stubborn", "1", "stubborn", "")
	agent := exec.Command(os.Args[0], "-test.run=^TestAgentProcess$")
	agent.Env = append(os.Environ(), agentBase+"="+y.base, "TMPDIR="+t.TempDir()) // the killed agent cannot remove its own
	agent.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	y.eventually("the products run", func() bool { return processesOf(uid) == 2 && processesOf(uid+1) == 2 })
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
	y.eventually("the products are gone", func() bool { return processesOf(uid)+processesOf(uid+1) == 0 })
	y.run()
	y.eventually("the next agent runs them", func() bool {
		return y.show("sleeper").Status.State == product.Running && y.show("stubborn").Status.State == product.Running
	})
	y.stop()
	if n := processesOf(uid) + processesOf(uid+1); n != 0 {
		t.Errorf("%d processes are left", n)
	}
}
