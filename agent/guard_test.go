package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/config"
	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/internal/roottest"
)

// TestGuardedAgent: a whole agent with the guard on. What is tried against it is refused, and an event with who tried it; when the
// agent ends of its own, nothing of the guard is left.
func TestGuardedAgent(t *testing.T) {
	roottest.RequireVM(t, "refuses things on the whole machine, and needs BPF LSM")
	base := t.TempDir()
	cfg := config.Default()
	cfg.Agent.State, cfg.Agent.Run = filepath.Join(base, "state"), filepath.Join(base, "run")
	cfg.Guard.Enabled = config.GuardOn
	for _, dir := range []string{cfg.Agent.State, cfg.Agent.Run} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// Before there is an agent: it is nobody's child, and so it is nobody's to trust.
	stranger := exec.Command("/bin/sh", "-c", `read pid dir; kill -9 $pid; rm -rf $dir; read x`)
	in, err := stranger.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = in.Close(), stranger.Wait() }()

	a, err := New(Options{Config: cfg, Log: slog.New(slog.DiscardHandler), Dropped: func() uint64 { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	tap := a.hub.Tap(event.KindsOf(event.Tamper), 100)
	defer tap.Close()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	<-a.guarded
	if e := healthOf(a, guardComponent); e.Status != health.OK {
		t.Errorf("health: %+v", e)
	}
	_, err = in.Write([]byte(strconv.Itoa(os.Getpid()) + " " + cfg.Agent.State + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	patience, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for !seen["task_kill"] || !seen["inode_unlink"] && !seen["inode_rmdir"] {
		e, _, err := tap.Next(patience)
		if err != nil {
			t.Fatalf("of what was tried, only %v is an event: %v", seen, err)
		}
		seen[e.Tamper.Hook] = true
		if !e.Tamper.Refused || e.Process.Credentials.EUID != 0 {
			t.Errorf("event: %+v %+v", e.Tamper, e.Process)
		}
	}
	if _, err := os.Stat(cfg.Agent.State); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob("/sys/fs/bpf/bailey-*-guard"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := unix.Access(cfg.Agent.State, unix.W_OK); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func healthOf(a *Agent, component string) health.Entry {
	for _, e := range a.health.List() {
		if e.Component == component {
			return e
		}
	}
	return health.Entry{}
}

// TestGuardHealth: hooks that are not there, and hooks that are not called, are named.
func TestGuardHealth(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		missing, silent []string
		status          health.Status
		says, remedy    string
	}{
		"all":     {nil, nil, health.OK, "is refused", ""},
		"missing": {[]string{"path_notify"}, nil, health.Degraded, "path_notify", "newer kernel"},
		"silent":  {[]string{"path_notify"}, []string{"inode_mkdir", "task_kill"}, health.Degraded, "inode_mkdir, task_kill, path_notify", "ftrace_enabled"},
	} {
		e := guardHealth(c.missing, c.silent)
		if e.Status != c.status || !strings.Contains(e.Summary, c.says) || !strings.Contains(e.Remedy, c.remedy) {
			t.Errorf("%s: %+v", name, e)
		}
	}
}
