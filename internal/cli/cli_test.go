package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bailey/agent/control"
	"bailey/agent/control/controltest"
	"bailey/internal/cli"
	"bailey/internal/leakcheck"
	"bailey/internal/roottest"

	"golang.org/x/sys/unix"
)

// childVariable makes this test binary behave as bailey with one of the agents in childAgents.
const childVariable = "BAILEY_CLI_TEST_AGENT"

var childAgents = map[string]cli.Agent{
	// never_stops ignores that it is told to stop.
	"never_stops": func(ctx context.Context, _ cli.AgentOptions) error {
		_, _ = os.Stdout.WriteString("ready\n")
		<-ctx.Done()
		_, _ = os.Stdout.WriteString("stopping\n")
		select {}
	},
	// serves does what a keeper expects of an agent, and nothing else.
	"serves": func(ctx context.Context, o cli.AgentOptions) error {
		if os.Getenv("NOTIFY_SOCKET") != "" {
			return errors.New("the agent could speak for its keeper")
		}
		if err := o.Keeper.Ready(ctx); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	},
	// logs_much fails after many lines.
	"logs_much": func(_ context.Context, o cli.AgentOptions) error {
		for i := range 100_000 {
			o.Log.Info("answered", "event", i)
		}
		_, _ = fmt.Fprintf(os.Stdout, "dropped %v\n", o.Dropped() > 0)
		return errors.New("the group is gone")
	},
}

func TestMain(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		os.Exit(cli.Main(cli.Process{Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Agent: childAgents[name]}))
	}
	leakcheck.Main(m)
}

// child starts this binary as bailey.
func child(t *testing.T, agent string, stderr *os.File) (cmd *exec.Cmd, lines <-chan string) {
	t.Helper()
	dir := t.TempDir()
	cmd = exec.Command("/proc/self/exe", "agent", "--state", filepath.Join(dir, "state"), "--run", filepath.Join(dir, "run"))
	cmd.Env = append(os.Environ(), childVariable+"="+agent)
	if stderr != nil {
		cmd.Stderr = stderr
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	read := make(chan string, 16)
	go func() {
		defer close(read)
		for s := bufio.NewScanner(out); s.Scan(); {
			read <- s.Text()
		}
	}()
	return cmd, read
}

func expect(t *testing.T, lines <-chan string, want string) {
	t.Helper()
	select {
	case got := <-lines:
		if got != want {
			t.Fatalf("it printed %q, want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("it did not print %q", want)
	}
}

// TestSecondSignalEndsAtOnce: the agent hangs while it stops; the operator insists.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	roottest.Require(t, "the agent command starts for root only")
	cmd, lines := child(t, "never_stops", nil)
	expect(t, lines, "ready")
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	expect(t, lines, "stopping")
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(20 * time.Millisecond) // the default action may come back a moment after "stopping"
	defer tick.Stop()
	for deadline := time.After(20 * time.Second); ; {
		select {
		case err := <-ended:
			var exit *exec.ExitError
			// The agent dies by it, and the keeper says so as a shell would.
			if want := 128 + int(syscall.SIGINT); !errors.As(err, &exit) || exit.ExitCode() != want {
				t.Errorf("it ended with %v, want exit status %d", err, want)
			}
			return
		case <-tick.C:
			_ = cmd.Process.Signal(syscall.SIGINT)
		case <-deadline:
			t.Fatal("it did not end")
		}
	}
}

// TestAgentNeverWaitsForItsStderr (failure class F1): nobody reads stderr, and the agent works, fails and ends all the same.
func TestAgentNeverWaitsForItsStderr(t *testing.T) {
	roottest.Require(t, "the agent command starts for root only")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd, lines := child(t, "logs_much", w)
	_ = w.Close()
	expect(t, lines, "dropped true")
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != cli.ExitFailed {
			t.Errorf("it ended with %v, want exit code %d", err, cli.ExitFailed)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for its stderr")
	}
}

// terminal returns both ends of a new pseudo-terminal.
func terminal(t *testing.T) (operator, program *os.File) {
	t.Helper()
	operator, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		roottest.Unavailable(t, "needs pseudo-terminals: "+err.Error())
	}
	t.Cleanup(func() { _ = operator.Close() })
	if err := unix.IoctlSetPointerInt(int(operator.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(operator.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		roottest.Unavailable(t, "needs pseudo-terminals: "+err.Error())
	}
	t.Cleanup(func() { _ = program.Close() })
	return operator, program
}

// serve runs controltest's agent and returns its run directory.
func serve(t *testing.T, a *controltest.Agent) string {
	t.Helper()
	run, err := os.MkdirTemp("", "cli")
	if err != nil {
		t.Fatal(err)
	}
	cfg := a.Config(run)
	cfg.Log = slog.New(slog.DiscardHandler)
	s, err := control.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("stop: %v", err)
		}
		_ = os.RemoveAll(run)
	})
	return run
}

func TestInstallAsksOnTerminal(t *testing.T) {
	a := controltest.New()
	run := serve(t, a)
	folder := filepath.Join(t.TempDir(), "allowlist")
	if err := errors.Join(os.Mkdir(folder, 0o755), os.WriteFile(filepath.Join(folder, "manifest.toml"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, answer string
		code         int
		installed    int
		want         string
	}{
		{"empty_is_no", "\n", cli.ExitFailed, 0, "nothing was installed"},
		{"no", "no\n", cli.ExitFailed, 0, "nothing was installed"},
		{"yes", "y\n", cli.ExitOK, 1, "It asks to\n  - be asked before every program start\n"},
		{"replaces", "yes\n", cli.ExitOK, 1, "It replaces release 0.1.0 and asks, beyond what that has, to\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			operator, program := terminal(t)
			if _, err := operator.WriteString(c.answer); err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			code := cli.Main(cli.Process{Args: []string{"--run", run, "product", "install", folder}, Stdin: program, Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }})
			if code != c.code || !strings.Contains(errs.String(), c.want) {
				t.Errorf("code %d, want %d with %q:\n%s%s", code, c.code, c.want, errs.String(), out.String())
			}
			if list, err := a.Products.List(t.Context()); err != nil || len(list) != c.installed {
				t.Errorf("%d products are installed, want %d: %v", len(list), c.installed, err)
			}
		})
	}
}

func TestColoursOnlyOnTerminal(t *testing.T) {
	run := serve(t, controltest.New())
	status := func(stdout io.Writer, env map[string]string) {
		code := cli.Main(cli.Process{Args: []string{"--run", run, "status"}, Stdout: stdout, Stderr: io.Discard, Getenv: func(k string) string { return env[k] }})
		if code != 0 {
			t.Fatalf("status ended with %d", code)
		}
	}
	for name, c := range map[string]struct {
		env  map[string]string
		want bool
	}{
		"terminal": {nil, true},
		"no_color": {map[string]string{"NO_COLOR": "1"}, false},
		"dumb":     {map[string]string{"TERM": "dumb"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			operator, program := terminal(t)
			status(program, c.env)
			buf := make([]byte, 4096)
			n, err := operator.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			if got := bytes.Contains(buf[:n], []byte("\x1b[")); got != c.want {
				t.Errorf("coloured %v, want %v: %q", got, c.want, buf[:n])
			}
		})
	}
	var pipe bytes.Buffer
	status(&pipe, nil)
	if strings.Contains(pipe.String(), "\x1b") {
		t.Errorf("a pipe gets colours: %q", pipe.String())
	}
}
