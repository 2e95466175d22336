package rig

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bailey/agent/keeper"
	controlv1 "bailey/api/control/v1"
	"bailey/api/control/v1/client"
	"bailey/api/control/v1/controlv1connect"
	"bailey/internal/roottest"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
)

// Agent is one running agent that watches one scratch filesystem.
type Agent struct {
	T       *testing.T
	Built   string // where the programs are
	Exe     string // bailey, of these
	Dir     string // holds everything of this test
	Scratch string // a tmpfs of the test's own, the only thing watched
	Run     string
	State   string
	Config  string   // the configuration file
	Wrap    []string // a command that the agent is started through; empty: none
	Log     *os.File // where it logs to; nil: Said
	Cmd     *exec.Cmd
	Said    *Buffer
	Client  controlv1connect.ControlServiceClient
	stopped bool
}

// Buffer collects a child's output. Safe for concurrent use.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends p.
func (l *Buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns all that was written.
func (l *Buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// New mounts a scratch filesystem and prepares an agent for it, which is not started: a test may put files on the scratch
// filesystem, and change the fields, before Start.
func New(t *testing.T, built, config string) *Agent {
	t.Helper()
	dir, scratch := scratchDir(t)
	a := &Agent{
		T: t, Built: built, Exe: filepath.Join(built, "bailey"), Dir: dir, Scratch: scratch, Run: filepath.Join(dir, "run"), State: filepath.Join(dir, "state"),
		Config: filepath.Join(dir, "agent.toml"), stopped: true,
	}
	a.WriteConfig(config)
	return a
}

// Start starts an agent with config as its TOML file and waits until it serves. It ends with the test.
func Start(t *testing.T, built, config string) *Agent {
	t.Helper()
	a := New(t, built, config)
	a.Start()
	t.Cleanup(a.Stop)
	return a
}

// scratchDir mounts a tmpfs for the test and returns it with the test's own directory around it.
func scratchDir(t *testing.T) (dir, scratch string) {
	t.Helper()
	roottest.Require(t, "mounts a scratch filesystem and starts an agent")
	dir, err := os.MkdirTemp("", "bailey-rig-")
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
	if err := unix.Mount("bailey-rig", scratch, "tmpfs", 0, "mode=0755"); err != nil {
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

// WriteConfig replaces the agent's configuration file.
func (a *Agent) WriteConfig(text string) {
	a.T.Helper()
	if err := os.WriteFile(a.Config, []byte(text), 0o644); err != nil {
		a.T.Fatal(err)
	}
}

// Start starts the agent and waits until it serves.
func (a *Agent) Start() {
	a.T.Helper()
	a.stopped = false
	a.Said = &Buffer{}
	argv := append(append([]string(nil), a.Wrap...), a.Exe, "agent",
		"--config", a.Config, "--state", a.State, "--run", a.Run, "--watch", a.Scratch)
	a.Cmd = exec.Command(argv[0], argv[1:]...)
	a.Cmd.Stdout, a.Cmd.Stderr = a.Said, a.Said
	if a.Log != nil {
		a.Cmd.Stderr = a.Log
	}
	// The dead man: whatever happens to the test, its agent does not outlive it.
	a.Cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := a.Cmd.Start(); err != nil {
		a.T.Fatal(err)
	}
	a.Client = client.New(filepath.Join(a.Run, controlv1.SocketName))
	a.Eventually("the agent serves", 20*time.Second, a.Serves)
}

// Serves is nil when the agent answers its operator.
func (a *Agent) Serves() error {
	_, err := a.Client.Status(context.Background(), connect.NewRequest(&controlv1.StatusRequest{}))
	return err
}

// Stop ends the agent as an operator would and fails the test if it does not go in time.
func (a *Agent) Stop() {
	if a.stopped {
		return
	}
	a.stopped = true
	_ = a.Cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan error, 1)
	go func() { done <- a.Cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			a.T.Errorf("the agent ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		_ = a.Cmd.Process.Signal(syscall.SIGQUIT) // its goroutines go to stderr
		time.Sleep(time.Second)
		_ = a.Cmd.Process.Kill()
		a.T.Errorf("the agent did not stop within 20 s: %v", <-done)
	}
	if a.T.Failed() {
		a.T.Logf("the agent said:\n%s", a.Said)
	}
}

// Kill ends the agent and its keeper as a crash of both would.
func (a *Agent) Kill() {
	a.stopped = true
	kept, err := keeper.ReadState(a.Run)
	_ = a.Cmd.Process.Kill()
	if err == nil && kept.Agent > 0 {
		_ = syscall.Kill(kept.Agent, syscall.SIGKILL)
	}
	_ = a.Cmd.Wait() // "killed" is what it says
}

// Command returns a run of the command line against this agent.
func (a *Agent) Command(args ...string) *exec.Cmd {
	cmd := exec.Command(a.Exe, args...)
	cmd.Env = append(os.Environ(), "BAILEY_RUN="+a.Run, "NO_COLOR=1")
	return cmd
}

// Bailey runs the command line against this agent.
func (a *Agent) Bailey(args ...string) (string, error) {
	out, err := a.Command(args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("bailey %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// Must is Bailey that fails the test.
func (a *Agent) Must(args ...string) string {
	a.T.Helper()
	out, err := a.Bailey(args...)
	if err != nil {
		a.T.Fatal(err)
	}
	return out
}

// Status returns what the agent says of itself.
func (a *Agent) Status() *controlv1.StatusResponse {
	a.T.Helper()
	r, err := a.Client.Status(context.Background(), connect.NewRequest(&controlv1.StatusRequest{}))
	if err != nil {
		a.T.Fatal(err)
	}
	return r.Msg
}

// Product returns one product's entry in the agent's status.
func (a *Agent) Product(name string) *controlv1.Product {
	a.T.Helper()
	for _, p := range a.Status().GetProducts() {
		if p.GetName() == name {
			return p
		}
	}
	a.T.Fatalf("the agent has no product %s", name)
	return nil
}

// Health returns one entry of the agent's health, nil if there is none.
func (a *Agent) Health(component string) *controlv1.HealthEntry {
	a.T.Helper()
	for _, e := range a.Status().GetHealth() {
		if e.GetComponent() == component {
			return e
		}
	}
	return nil
}

// Eventually polls until f returns nil.
func (a *Agent) Eventually(what string, within time.Duration, f func() error) {
	a.T.Helper()
	end := time.Now().Add(within)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			a.T.Fatalf("%s: not within %s: %v\nthe agent said:\n%s", what, within, err, a.Said)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Program puts a program on the scratch filesystem that does nothing and exits with 0. Each has other bytes.
func (a *Agent) Program(name string) string {
	a.T.Helper()
	return a.File(name, string(TinyProgram(name)), 0o755)
}

// File puts a file on the scratch filesystem.
func (a *Agent) File(name, text string, mode os.FileMode) string {
	a.T.Helper()
	path := filepath.Join(a.Scratch, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		a.T.Fatal(err)
	}
	if err := writeProgram(path, []byte(text), mode); err != nil {
		a.T.Fatal(err)
	}
	return path
}
