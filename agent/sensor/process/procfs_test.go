package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"bailey/agent/event"
	"bailey/internal/boottime"
)

const statLine = "42 (evil) R 1 (x) S 7 42 42 0 -1 2097156 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0 18446744073709551615 4194304 5000000 140722771714784 0\n"

func TestParseStat(t *testing.T) {
	t.Parallel()
	got, err := parseStat([]byte(statLine))
	want := procStat{comm: "evil) R 1 (x", state: 'S', ppid: 7, flags: 2097156, threads: 1, start: 123_450_000_000, layout: layout{4194304, 140722771714784}}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "1", ")(", "1 (a) S", "1 (a) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x"} {
		if _, err := parseStat([]byte(bad)); !errors.Is(err, errStat) {
			t.Errorf("parseStat(%q): %v", bad, err)
		}
	}
}

func TestReadProcessReadsThisOne(t *testing.T) {
	t.Parallel()
	p, err := readProcess(uint32(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if p.Executable.Path != exe || p.Executable.Size == 0 || p.Parent.PID != uint32(os.Getppid()) || p.Parent.Start == 0 {
		t.Errorf("%+v", p)
	}
	if p.Credentials.EUID != uint32(os.Geteuid()) || p.Key.Start == 0 || p.Key.Start > boottime.Now() || p.Cgroup == "" {
		t.Errorf("%+v", p)
	}
	if _, err := readProcess(1<<22 + 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a pid that cannot be: %v", err)
	}
}

// TestReadProcessOfOneProgram: of a process that executes one program after the other, the name is that of the file. One program that is all tools knows both
// names.
func TestReadProcessOfOneProgram(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	shell, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "script")
	for path, content := range map[string][]byte{
		filepath.Join(dir, "sh"): shell, filepath.Join(dir, "ash"): shell,
		script: fmt.Appendf(nil, "i=0; while [ $i -lt 10000 ]; do i=$((i+1)); done; case $1 in ash) exec %[1]s/sh %[1]s/script sh;; *) exec %[1]s/ash %[1]s/script ash;; esac\n", dir),
	} {
		if err := os.WriteFile(path, content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(dir, "sh"), script)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
	seen := map[string]int{}
	for len(seen) < 2 || seen["sh"]+seen["ash"] < 3000 {
		p, err := readProcess(uint32(cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Dir(p.Executable.Path) != dir {
			continue // it is this one still, in the middle of its first exec
		}
		if p.Comm != filepath.Base(p.Executable.Path) {
			t.Fatalf("%s is %s, after %v", p.Executable.Path, p.Comm, seen)
		}
		seen[p.Comm]++
	}
}

func TestParseCgroups(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"version_2", "0::/system.slice/ssh.service\n", "/system.slice/ssh.service"},
		{"version_1", "5:pids:/a\n4:memory:/b\n0::/\n", "/b"},
		{"version_1_joined", "4:cpu,memory:/b\n", "/b"},
		{"pids_only", "4:cpu:/a\n3:pids:/b\n", "/b"},
		{"empty", "", ""},
		{"broken", "4\n:::\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := parseCgroups([]byte(c.text)); got.path != c.want {
				t.Errorf("%q, want %q", got.path, c.want)
			}
		})
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(statLine))
	f.Add([]byte("1 ((() S 1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(b); err == nil && len(s.comm) > len(b) {
			t.Fatal("the name is longer than its line")
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte("Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t1\t2\t3\t4\nCapEff:\t00ff\n"))
	f.Add([]byte("Uid:\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parseStatus(b); err != nil && c != (event.Credentials{}) {
			t.Fatal("credentials beside an error")
		}
	})
}

func FuzzParseCgroups(f *testing.F) {
	f.Add([]byte("0::/docker/x\n1:memory:/y\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := parseCgroups(b); len(got.path) > len(b) || len(got.container) > len(b) {
			t.Fatalf("%+v", got)
		}
	})
}
