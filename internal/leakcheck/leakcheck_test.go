package leakcheck

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bailey/internal/roottest"

	"golang.org/x/sys/unix"
)

// Each case leaves one thing behind and must be told of it by name.
func TestRunNamesWhatIsLeft(t *testing.T) {
	keep := t.TempDir()
	tests := map[string]struct {
		leak func(t *testing.T)
		want string
	}{
		"nothing":    {leak: func(*testing.T) {}},
		"descriptor": {leak: leakFile(filepath.Join(keep, "held")), want: "descriptor: " + filepath.Join(keep, "held")},
		"goroutine":  {leak: leakGoroutine, want: "goroutine:"},
		"child":      {leak: leakChild, want: "(sleep)"},
		"orphan":     {leak: leakOrphan, want: "(sleep)"},
		"zombie":     {leak: leakZombie, want: "state Z"},
		"temp_file":  {leak: leakTemp, want: "temporary file: "},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			t.Setenv(markName, "")
			code, report := run(func() int { tc.leak(t); return 0 }, 200*time.Millisecond)
			if code != 0 {
				t.Errorf("code = %d: the tests' own code must be returned", code)
			}
			if tc.want == "" && report != "" || !strings.Contains(report, tc.want) {
				t.Errorf("report = %q, want it to contain %q", report, tc.want)
			}
		})
	}
}

func leakFile(path string) func(*testing.T) {
	return func(t *testing.T) {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
	}
}

func leakGoroutine(t *testing.T) {
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	go func() { <-stop }()
}

func start(t *testing.T, name string, arg ...string) *exec.Cmd {
	cmd := exec.Command(name, arg...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func leakChild(t *testing.T) { start(t, "sleep", "60") }

func leakZombie(t *testing.T) { start(t, "true") }

func leakOrphan(t *testing.T) {
	out, err := exec.Command("sh", "-c", "sleep 20 >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = exec.Command("kill", strings.TrimSpace(string(out))).Run() })
}

func leakTemp(t *testing.T) {
	if _, err := os.MkdirTemp("", "bailey-"); err != nil {
		t.Fatal(err)
	}
}

func TestRunNamesMountsAndCgroups(t *testing.T) {
	roottest.Require(t, "mounts and cgroups")
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv(markName, "")
	_, report := run(func() int {
		dir, err := os.MkdirTemp("", "m")
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("bailey", dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
			_ = os.RemoveAll(dir)
		})
		return 0
	}, 200*time.Millisecond)
	if !strings.Contains(report, "mount: ") {
		t.Errorf("report = %q, want a mount", report)
	}
}

func TestMachineComparesAtTheEnd(t *testing.T) {
	roottest.Require(t, "cgroups")
	root := t.TempDir()
	cgroup := filepath.Join(root, "memory", "bailey-x")
	if err := os.MkdirAll(filepath.Join(cgroup, "child"), 0o755); err != nil {
		t.Fatal(err)
	}
	empty := func(path string) bool { return !populated(path) }
	if got := named(root, empty); len(got) != 1 || got[0] != cgroup {
		t.Errorf("named = %v, want %s", got, cgroup)
	}
	if err := os.WriteFile(filepath.Join(cgroup, "child", "cgroup.procs"), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := named(root, empty); len(got) != 0 {
		t.Errorf("named = %v: a cgroup with a process below it belongs to somebody", got)
	}
}

func TestCheckPassesWhenNothingIsLeft(t *testing.T) {
	Check(t)
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
}
