package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	controlv1 "bailey/api/control/v1"
	"bailey/api/control/v1/controlv1connect"
	"bailey/internal/leakcheck"
	"bailey/internal/roottest"
	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { leakcheck.Main(suite{m}) }

// suite is the tests with what they run, which is built once and gone before leaks are looked for.
type suite struct{ tests *testing.M }

// built is where the binaries are.
var built string

func (s suite) Run() int {
	if os.Geteuid() != 0 {
		return s.tests.Run() // each test says that it needs root
	}
	dir, err := os.MkdirTemp("", "built-")
	if err == nil {
		built = dir
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }() // the leak check tells if that failed
	return s.tests.Run()
}

func build(dir string) error {
	for out, pkg := range map[string]string{
		"bailey":    "bailey/cmd/bailey",
		"faulty":    "bailey/test/faulty",
		"allowlist": "bailey/products/allowlist",
		"clamav":    "bailey/products/clamav",
	} {
		cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, out), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if msg, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", pkg, err, msg)
		}
	}
	return nil
}

// agent is one running agent that watches one scratch filesystem.
type agent struct {
	t       *testing.T
	dir     string // holds everything of this test
	scratch string // a tmpfs of the test's own, the only thing watched
	run     string
	state   string
	cmd     *exec.Cmd
	stderr  *lockedBuffer
	log     *os.File // where it logs to; nil: stderr
	client  controlv1connect.ControlServiceClient
	stopped bool
}

// lockedBuffer collects a child's output. Safe for concurrent use.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// scratchDir mounts a tmpfs for the test and returns it with the test's own directory around it.
func scratchDir(t *testing.T) (dir, scratch string) {
	t.Helper()
	roottest.Require(t, "mounts a scratch filesystem and starts an agent")
	dir, err := os.MkdirTemp("", "bailey-e2e-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	scratch = filepath.Join(dir, "scratch")
	if err := os.Mkdir(scratch, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bailey-e2e", scratch, "tmpfs", 0, "mode=0755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(scratch, 0); err != nil {
			t.Errorf("unmount the scratch filesystem: %v", err)
			_ = unix.Unmount(scratch, unix.MNT_DETACH)
		}
	})
	return dir, scratch
}

// startAgent starts an agent on a scratch filesystem with config as its TOML file and waits until it serves.
func startAgent(t *testing.T, config string) *agent {
	t.Helper()
	dir, scratch := scratchDir(t)
	a := &agent{t: t, dir: dir, scratch: scratch, run: filepath.Join(dir, "run"), state: filepath.Join(dir, "state")}
	a.writeConfig(config)
	a.start()
	t.Cleanup(a.stop)
	return a
}

func (a *agent) writeConfig(text string) {
	a.t.Helper()
	if err := os.WriteFile(a.configFile(), []byte(text), 0o644); err != nil {
		a.t.Fatal(err)
	}
}

func (a *agent) configFile() string { return filepath.Join(a.dir, "agent.toml") }

func (a *agent) start() {
	a.t.Helper()
	a.stopped = false
	a.stderr = &lockedBuffer{}
	a.cmd = exec.Command(filepath.Join(built, "bailey"), "agent",
		"--config", a.configFile(), "--state", a.state, "--run", a.run, "--watch", a.scratch)
	a.cmd.Stdout, a.cmd.Stderr = a.stderr, a.stderr
	if a.log != nil {
		a.cmd.Stderr = a.log
	}
	// The dead man: whatever happens to the test, its agent does not outlive it.
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := a.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	socket := filepath.Join(a.run, "control.sock")
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	a.t.Cleanup(transport.CloseIdleConnections)
	a.client = controlv1connect.NewControlServiceClient(&http.Client{Transport: transport}, "http://bailey")
	a.eventually("the agent serves", 20*time.Second, func() error {
		_, err := a.client.Status(context.Background(), connect.NewRequest(&controlv1.StatusRequest{}))
		return err
	})
}

// stop ends the agent as an operator would and fails the test if it does not go in time.
func (a *agent) stop() {
	if a.stopped {
		return
	}
	a.stopped = true
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan error, 1)
	go func() { done <- a.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			a.t.Errorf("the agent ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		_ = a.cmd.Process.Signal(syscall.SIGQUIT) // its goroutines go to stderr
		time.Sleep(time.Second)
		_ = a.cmd.Process.Kill()
		a.t.Errorf("the agent did not stop within 20 s: %v", <-done)
	}
	if a.t.Failed() {
		a.t.Logf("the agent said:\n%s", a.stderr)
	}
}

// kill ends the agent as a crash would.
func (a *agent) kill() {
	a.stopped = true
	_ = a.cmd.Process.Kill()
	_ = a.cmd.Wait() // "killed" is what it says
}

// bailey runs the command line against this agent.
func (a *agent) bailey(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(built, "bailey"), args...)
	cmd.Env = append(os.Environ(), "BAILEY_RUN="+a.run, "NO_COLOR=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("bailey %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func (a *agent) must(args ...string) string {
	a.t.Helper()
	out, err := a.bailey(args...)
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

func (a *agent) status() *controlv1.StatusResponse {
	a.t.Helper()
	r, err := a.client.Status(context.Background(), connect.NewRequest(&controlv1.StatusRequest{}))
	if err != nil {
		a.t.Fatal(err)
	}
	return r.Msg
}

// product returns one product's entry in the agent's status.
func (a *agent) product(name string) *controlv1.Product {
	a.t.Helper()
	for _, p := range a.status().GetProducts() {
		if p.GetName() == name {
			return p
		}
	}
	a.t.Fatalf("the agent has no product %s", name)
	return nil
}

// eventually polls until f returns nil.
func (a *agent) eventually(what string, within time.Duration, f func() error) {
	a.t.Helper()
	end := time.Now().Add(within)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			a.t.Fatalf("%s: not within %s: %v\nthe agent said:\n%s", what, within, err, a.stderr)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// program puts a program on the scratch filesystem that does nothing and exits with 0. Each has other bytes.
func (a *agent) program(name string) string {
	a.t.Helper()
	path := filepath.Join(a.scratch, name)
	if err := os.WriteFile(path, tinyProgram(name), 0o755); err != nil {
		a.t.Fatal(err)
	}
	return path
}
