package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	productv1 "bailey/api/product/v1"
	"bailey/internal/roottest"
	"bailey/test/rig"
)

// TestGuardAndToken: root cannot end a guarded agent, nor its keeper or a product, nor change what they keep, until an operator's token says
// so. The next agent takes that over, it ends when the operator says so, and a token counts once.
func TestGuardAndToken(t *testing.T) {
	roottest.RequireVM(t, "refuses things on the whole machine, and needs BPF LSM")
	o := newOperator(t)
	a := rig.New(t, built, o.guardOn())
	o.start(a)
	a.Install(rig.Spec{Name: "good", Questions: "exec"})
	awaitLocked(a)
	tampers := a.Tap("tamper")
	agent, keeper, product := agentPID(a, 0), a.Cmd.Process.Pid, int(a.Product("good").GetPid())
	kept := filepath.Join(a.State, "mine")
	for _, pid := range []int{agent, keeper, product} {
		for _, s := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGTERM} {
			if err := syscall.Kill(pid, s); !errors.Is(err, syscall.EPERM) {
				t.Errorf("%v for process %d: %v", s, pid, err)
			}
		}
	}
	if err := os.WriteFile(kept, nil, 0o644); !errors.Is(err, syscall.EPERM) {
		t.Errorf("write below the state directory: %v", err)
	}
	a.Find(tampers, "of who tried to kill the agent", func(e *productv1.Event) bool {
		return e.GetTamper().GetRefused() && int(e.GetTamper().GetTarget().GetPid()) == agent && int(e.GetProcess().GetKey().GetPid()) == os.Getpid()
	})

	token := o.token("stop,state", "5m")
	a.Must("unlock", "--token", token)
	if err := os.WriteFile(kept, nil, 0o644); err != nil {
		t.Errorf("write with a token: %v", err)
	}
	if err := syscall.Kill(agent, syscall.SIGKILL); err != nil {
		t.Errorf("kill the agent with a token: %v", err)
	}
	next := agentPID(a, agent)
	a.Eventually("the next agent has the guard", 20*time.Second, func() error { _, err := a.Bailey("lock"); return err })
	if err := os.Remove(kept); !errors.Is(err, syscall.EPERM) {
		t.Errorf("remove it when the guard is locked again: %v", err)
	}
	if err := syscall.Kill(next, syscall.SIGKILL); !errors.Is(err, syscall.EPERM) {
		t.Errorf("kill the next agent: %v", err)
	}
	if out, err := a.Bailey("unlock", "--token", token); err == nil || !strings.Contains(out, "used") {
		t.Errorf("the token once more: %s, %v", out, err)
	}
	a.Must("journal", "verify", "--state", a.State)
}

// TestGuardWhileTheAgentUpdatesItself: while one release of the agent follows another, and while one that crashes is gone back from, root can neither end
// the keeper nor change what is kept.
func TestGuardWhileTheAgentUpdatesItself(t *testing.T) {
	roottest.RequireVM(t, "refuses things on the whole machine, and needs BPF LSM")
	o := newOperator(t)
	a := rig.New(t, built, "")
	v := ownVendor(a, "3s", o.guardOn())
	o.start(a)
	keeper, kept := a.Cmd.Process.Pid, filepath.Join(a.State, "mine")
	try := func() error {
		if err := syscall.Kill(keeper, syscall.SIGKILL); !errors.Is(err, syscall.EPERM) {
			return fmt.Errorf("kill the keeper: %w", err)
		}
		if err := os.WriteFile(kept, nil, 0o644); !errors.Is(err, syscall.EPERM) {
			return fmt.Errorf("write below the state directory: %w", err)
		}
		return nil
	}
	awaitLocked(a)
	tries, stop, ended := 0, make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			case <-time.After(5 * time.Millisecond):
			}
			if err := try(); err != nil {
				ended <- err
				return
			}
			tries++
		}
	}()
	offer(v, a, "1.1.0", "none")
	ownReaches(a, "1.1.0", "committed")
	offer(v, a, "1.2.0", "crash")
	ownReaches(a, "1.2.0", "rolled_back")
	runsAgent(a, "1.1.0")
	close(stop)
	if err := <-ended; err != nil || tries == 0 {
		t.Errorf("after %d attempts that were refused: %v", tries, err)
	}
	t.Logf("%d attempts were refused", tries)
}

// operator holds a key and signs tokens.
type operator struct {
	t                 *testing.T
	key, pass, public string
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	dir := t.TempDir()
	o := &operator{t: t, key: filepath.Join(dir, "key"), pass: filepath.Join(dir, "pass")}
	if err := os.WriteFile(o.pass, []byte("correct horse battery staple\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.public = o.bailey("keygen", "--out", o.key, "--name", "alice", "--passphrase-file", o.pass)
	return o
}

// guardOn configures a guard that this operator's tokens open.
func (o *operator) guardOn() string {
	return "[guard]\nenabled = \"on\"\n[operator]\nkeys = [" + strconv.Quote(o.public) + "]\nkey_dir = \"\"\n"
}

// start starts an agent with that guard, which a token ends.
func (o *operator) start(a *rig.Agent) {
	o.t.Helper()
	a.Start()
	o.t.Cleanup(func() {
		a.Must("unlock", "--token", o.token("stop", "5m"))
		a.Stop()
	})
}

func awaitLocked(a *rig.Agent) {
	a.T.Helper()
	a.Eventually("the guard is locked", 20*time.Second, func() error {
		if text, err := a.Bailey("status"); err != nil || !strings.Contains(text, "locked") {
			return errors.New(text)
		}
		return nil
	})
}

// token signs one for this machine.
func (o *operator) token(scopes, lasts string) string {
	o.t.Helper()
	return o.bailey("sign", "--key", o.key, "--passphrase-file", o.pass, "--any-host", "--scope", scopes, "--for", lasts)
}

func (o *operator) bailey(args ...string) string {
	o.t.Helper()
	out, err := exec.Command(filepath.Join(built, "bailey"), append([]string{"operator"}, args...)...).Output()
	if err != nil {
		o.t.Fatalf("bailey operator %v: %v", args, err)
	}
	return strings.TrimSpace(string(out))
}
