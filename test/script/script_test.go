// Package script_test runs the command line as an operator does: each file in testdata is a script of commands with what they
// must print and how they must end. The agent that the scripts talk to is controltest's, behind the real socket; what
// needs the real agent and the kernel is in test/e2e.
//
// Invariant: every command here is the real command, from its arguments to its exit code.
package script_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"bailey/agent/control"
	"bailey/agent/control/controltest"
	"bailey/agent/event"
	"bailey/agent/product/link"
	controlv1 "bailey/api/control/v1"
	"bailey/internal/boottime"
	"bailey/internal/cli"
	"bailey/internal/fleetcli"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"bailey":        bailey,
		"bailey-fleet":  fleet,
		"nobody-bailey": func() { becomeNobody(); bailey() },
	})
}

// bailey is the whole program but for its agent.
func bailey() {
	os.Exit(cli.Main(cli.Process{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Version: "9.9.9", Agent: memoryAgent,
	}))
}

// fleet is the whole other program.
func fleet() {
	os.Exit(fleetcli.Main(fleetcli.Process{Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Version: "9.9.9"}))
}

// becomeNobody turns this process into an unprivileged user's.
func becomeNobody() {
	const nobody = 65534
	err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(nobody, nobody, nobody), syscall.Setresuid(nobody, nobody, nobody))
	if err != nil {
		fmt.Fprintln(os.Stderr, "become nobody:", err)
		os.Exit(125)
	}
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			// Sockets' paths are bounded; the work directory's name is not ours.
			run, err := os.MkdirTemp("", "run")
			if err != nil {
				return err
			}
			e.Defer(func() { _ = os.RemoveAll(run) })
			e.Setenv("BAILEY_RUN", run)
			e.Setenv("RUN", run)
			return os.Chmod(run, 0o755)
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": code, "await": await, "record": record, "damage": damage},
	})
}

// code runs a command that must end with an exit code: code 3 bailey status.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND…")
	}
	got := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit interface{ ExitCode() int }
		if !asExit(err, &exit) {
			ts.Fatalf("%v: %v", args[1:], err)
		}
		got = fmt.Sprint(exit.ExitCode())
	}
	if got != args[0] {
		ts.Fatalf("%v ended with %s, want %s", args[1:], got, args[0])
	}
}

func asExit(err error, target *interface{ ExitCode() int }) bool {
	e, ok := err.(interface{ ExitCode() int })
	*target = e
	return ok
}

// await waits until an agent serves $RUN.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: await")
	}
	path := filepath.Join(ts.Getenv("RUN"), controlv1.SocketName)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-tick.C {
		if c, err := net.Dial("unix", path); err == nil {
			_ = c.Close()
			return
		}
	}
	ts.Fatalf("no agent serves %s", path)
}

// memoryAgent is an agent without a kernel: controltest behind the real control socket. While somebody taps its events it emits
// the scene of scene.go again and again.
func memoryAgent(ctx context.Context, o cli.AgentOptions) error {
	a := controltest.New()
	a.SetHealth(&controlv1.HealthEntry{Component: "containment.landlock", Status: "degraded", Summary: "this kernel has no Landlock", Remedy: "boot Linux 5.13 or newer"})
	a.SetSafe(os.Getenv("BOOT_SAFE"))
	a.Cache.Fill(7)
	a.Rules.Set(&controlv1.Rule{
		Product: "scanner", Id: "bad", Action: "exec", Match: "below=/tmp/\x1b]0;owned", Left: 3_600_000_000_000, Until: 7_200_000_000_000, Hits: 3, Enforced: true,
	}, &controlv1.Rule{Product: "scanner", Id: "mail", Action: "connect", Match: "destination=0.0.0.0/0 port 25", Left: 500_000_000})
	a.Brake.Set(&controlv1.BrakedProduct{
		Product: "scanner", Release: "2.0-ab", Since: 1_700_000_000e9, Rule: "package_files", Denies: 4,
		Reason: "it denied 6 different files of packages within 1m0s, the limit is 5", Files: []string{"/usr/bin/id", "/usr/bin/\x1b]0;owned"},
	})
	if token := os.Getenv("GUARD_TOKEN"); token != "" {
		a.Door.Guard(token, &controlv1.Guard{
			Active: true, Scopes: []string{"stop", "upgrade"}, Until: 1e12, Expires: 1_700_000_000e9, Operator: "alice", Key: "0011223344556677",
			Token: "00112233445566778899aabbccddeeff",
		})
	}
	scene(a)
	cfg := a.Config(o.Config.Agent.Run)
	cfg.Log = o.Log
	cfg.AppendEvent = (&link.Codec{}).AppendEvent
	s, err := control.New(cfg)
	if err != nil {
		return err
	}
	o.Log.Info("agent started", "version", o.Build.Version)
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer cancel()
	played := make(chan struct{})
	go func() {
		defer close(played)
		play(ctx, a)
	}()
	err = s.Run(ctx)
	cancel()
	<-played
	return err
}

// play emits the scene while there is a tap.
func play(ctx context.Context, a *controltest.Agent) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if a.Taps() == 0 {
				continue
			}
			for _, e := range scene(a) {
				a.Emit(e)
			}
		}
	}
}

// scene is an attacker's shell and what came of it. Its second program tries to write to the operator's terminal.
func scene(a *controltest.Agent) []*event.Event {
	shell := &event.Process{Key: event.ProcessKey{PID: 200, Start: 2}, Parent: event.ProcessKey{PID: 100, Start: 1}, Comm: "bash", Executable: event.File{Path: "/usr/bin/bash"}, Credentials: event.Credentials{UID: 1000, EUID: 1000}}
	login := &event.Process{Key: event.ProcessKey{PID: 100, Start: 1}, Comm: "sshd", Executable: event.File{Path: "/usr/sbin/sshd"}}
	cat := &event.Process{Key: event.ProcessKey{PID: 300, Start: 3}, Parent: shell.Key, Comm: "cat", Executable: event.File{Path: "/usr/bin/cat"}, Credentials: shell.Credentials}
	a.SetAncestors(cat.Key, shell, login)
	bad := event.File{Path: "/tmp/with space", Ino: 9, Dev: 2}
	now := boottime.Now()
	return []*event.Event{
		{Kind: event.Exec, Seq: 1, Time: now, Process: cat, Exec: &event.ExecDetail{Argv: []string{"cat", "a b", "\x1b]0;owned\a"}, Argc: 3}},
		{Kind: event.Rename, Seq: 2, Time: now, Process: cat, File: &event.FileDetail{File: event.File{Path: "/tmp/new"}, From: "/tmp/old"}},
		{Kind: event.Verdict, Seq: 3, Time: now, Process: shell, Verdict: &event.VerdictDetail{
			QuestionID: 5, Asked: event.Exec, File: bad, Latency: 61_000, Decision: event.Decision{Reason: event.ByProducts},
			Answers: []event.Answer{{Product: "allowlist", Outcome: event.Answered, Latency: 60_000}, {Product: "clamav", Outcome: event.Unneeded, Allow: true}},
		}},
		{Kind: event.Finding, Seq: 4, Time: now, Process: shell, Finding: &event.FindingDetail{Product: "allowlist", Rule: "unknown_file", Title: "a file that no package owns", Severity: event.High, QuestionID: 5, Action: "denied", File: bad}},
		{Kind: event.Exit, Seq: 5, Time: now, Process: cat, Exit: &event.ExitDetail{Signal: 9}},
	}
}
