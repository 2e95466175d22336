package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"bailey/internal/leakcheck"
	"bailey/internal/roottest"
	"bailey/sdk"
	"bailey/sdk/sdktest"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// TestProgram builds the program and runs it as the agent does, against this machine's own packages.
func TestProgram(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/var/lib/dpkg/status"); err != nil {
		t.Skip("no dpkg here")
	}
	program := filepath.Join(t.TempDir(), "allowlist")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	unknown := filepath.Join(t.TempDir(), "unknown")
	if err := os.WriteFile(unknown, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	locked := filepath.Join(t.TempDir(), "locked")
	if err := os.WriteFile(locked, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	a := sdktest.NewProcess(t, "allowlist", sdktest.Options{Settings: map[string]string{"lockdown_paths": filepath.Dir(locked) + "/**"}},
		func(ctx context.Context, fd int) error {
			cmd := exec.CommandContext(ctx, program)
			cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
			cmd.Env = append(os.Environ(), "STATE_DIRECTORY="+t.TempDir())
			cmd.Stderr = os.Stderr
			socket := os.NewFile(uintptr(fd), "socket")
			defer socket.Close()
			cmd.ExtraFiles = []*os.File{socket}
			return cmd.Run()
		})
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(shell); err != nil {
		t.Fatal(err)
	} else if info.Sys().(*syscall.Stat_t).Uid != 0 {
		roottest.Unavailable(t, "needs a user namespace that shows root as the owner of "+shell)
	}
	for path, want := range map[string]sdk.Answer{shell: sdk.Allow.CacheFile(), unknown: sdk.Allow, locked: sdk.Deny} {
		if got := a.Ask(sdk.Exec, nil, path); got != want {
			t.Errorf("exec of %s: %v, want %v; findings %+v", path, got, want, a.Findings())
		}
	}
}
