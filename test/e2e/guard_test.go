package e2e

import (
	"errors"
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
	a := rig.New(t, built, "[guard]\nenabled = \"on\"\n[operator]\nkeys = ["+strconv.Quote(o.public)+"]\nkey_dir = \"\"\n")
	a.Start()
	t.Cleanup(func() {
		a.Must("unlock", "--token", o.token("stop", "5m"))
		a.Stop()
	})
	a.Install(rig.Spec{Name: "good", Questions: "exec"})
	a.Eventually("the guard is locked", 20*time.Second, func() error {
		if text, err := a.Bailey("status"); err != nil || !strings.Contains(text, "locked") {
			return errors.New(text)
		}
		return nil
	})
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
