package trial

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bailey/internal/leakcheck"
	"bailey/internal/roottest"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// build makes the agent of this very source.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "bailey")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-X main.version=1.2.3", "-o", program, "bailey/cmd/bailey")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the agent: %v: %s", err, out)
	}
	return program
}

// TestTrial: an agent that works passes, and leaves nothing.
func TestTrial(t *testing.T) {
	roottest.Require(t, "mounts a scratch filesystem and starts an agent")
	program := build(t)
	dir := filepath.Join(t.TempDir(), "trial")
	for _, c := range []struct {
		name, version, want string
		args                []string
	}{
		{name: "passes", version: "1.2.3"},
		{name: "another_version", version: "1.2.4", want: "it says that it is version 1.2.3"},
		{name: "does_not_read_the_configuration", version: "1.2.3", args: []string{"agent", "--unheard-of"}, want: "it does not read this machine's configuration"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.args == nil {
				c.args = []string{"agent", "--kept"}
			}
			said, err := Run(t.Context(), Config{Dir: dir, Program: program, Version: c.version, Args: c.args})
			switch {
			case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v; it said %s", err, said)
			}
		})
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil || strings.Contains(string(mounts), "bailey-trial") {
		t.Errorf("something is left: %v, mounts\n%s", err, mounts)
	}
}

// TestTrialOfWhatIsNoAgent: what ends, and what speaks of its configuration alone, is refused with what it said.
func TestTrialOfWhatIsNoAgent(t *testing.T) {
	roottest.Require(t, "mounts a scratch filesystem")
	for _, c := range []struct{ name, script, want, said string }{
		{"ends", "case $* in *--print-config) exit 0;; esac; echo no kernel for me >&2; exit 3", "it does not serve: it ended: exit status 3", "no kernel for me"},
		{"knows_no_configuration", "echo what is that >&2; exit 2", "exit status 2", "what is that"},
	} {
		t.Run(c.name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "bailey")
			if err := os.WriteFile(program, []byte("#!/bin/sh\n"+c.script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			said, err := Run(t.Context(), Config{Dir: filepath.Join(t.TempDir(), "trial"), Program: program, Version: "1", Args: []string{"agent"}})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(said, c.said) {
				t.Errorf("%v; it said %s", err, said)
			}
		})
	}
}
