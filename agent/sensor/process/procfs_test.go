package process

import (
	"errors"
	"os"
	"testing"

	"bailey/agent/event"
	"bailey/internal/boottime"
)

const statLine = "42 (evil) R 1 (x) S 7 42 42 0 -1 2097156 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0\n"

func TestParseStat(t *testing.T) {
	t.Parallel()
	got, err := parseStat([]byte(statLine))
	want := procStat{comm: "evil) R 1 (x", state: 'S', ppid: 7, flags: 2097156, threads: 1, start: 123_450_000_000}
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
