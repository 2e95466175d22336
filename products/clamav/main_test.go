package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"bailey/internal/leakcheck"
	"bailey/internal/roottest"
	"bailey/products/clamav/clamdtest"
	"bailey/sdk"
	"bailey/sdk/sdktest"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// TestProgram builds the program and runs it as the agent does, with a real clamd.
func TestProgram(t *testing.T) {
	t.Parallel()
	if !clamdtest.Available() {
		roottest.Unavailable(t, "needs clamd (Debian: clamav-daemon)")
	}
	program := filepath.Join(t.TempDir(), "clamav")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	clamd := clamdtest.Start(t)
	a := sdktest.NewProcess(t, "clamav", sdktest.Options{Settings: map[string]string{"socket": clamd.Socket, "database": clamd.Database}},
		func(ctx context.Context, fd int) error {
			cmd := exec.CommandContext(ctx, program)
			cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
			cmd.Stderr = os.Stderr
			socket := os.NewFile(uintptr(fd), "socket")
			defer socket.Close()
			cmd.ExtraFiles = []*os.File{socket}
			return cmd.Run()
		})
	for content, want := range map[string]sdk.Answer{
		"clean": sdk.Allow.CacheFile(), string(clamdtest.EicarContent()): sdk.Deny, string(clamdtest.MarkerContent()): sdk.Deny,
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := a.AskQuestion(sdktest.Question{Kind: sdk.Open, Path: path, Deadline: 5 * time.Second}); got != want {
			t.Errorf("%d bytes: %v, want %v; findings %+v", len(content), got, want, a.Findings())
		}
	}
}
