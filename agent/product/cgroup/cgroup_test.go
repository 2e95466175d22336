package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bailey/internal/roottest"
)

func TestMounts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, info string
		want       map[string]string
	}{
		{"v2", "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n", map[string]string{"": "/sys/fs/cgroup"}},
		{
			"hybrid",
			"31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw\n32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n",
			map[string]string{"": "/sys/fs/cgroup/unified", "cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct", "rw": "/sys/fs/cgroup/cpu,cpuacct"},
		},
		{"other_mounts_and_rubbish", "1 2 0:1 / / rw - ext4 /dev/vda rw\n\nx - cgroup\n", map[string]string{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, mounts(tt.info)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestSettings_v2(t *testing.T) {
	t.Parallel()
	g := &Group{v2: true}
	want := []setting{
		{file: "memory.max", value: "1024"}, {file: "memory.swap.max", value: "0", optional: true}, {file: "memory.oom.group", value: "1", optional: true},
		{file: "pids.max", value: "7"}, {file: "cpu.max", value: "50000 100000"},
	}
	if diff := cmp.Diff(want, g.settings(Limits{Memory: 1024, Pids: 7, CPU: 0.5}), cmp.AllowUnexported(setting{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The limits land in the files, the group freezes, kills and goes.
func TestGroup_real(t *testing.T) {
	roottest.Require(t, "control groups")
	tree, missing, err := Open(fmt.Sprintf("bailey-test-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("version %d, missing %v", tree.Version(), missing)
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	g, err := tree.Create("p", Limits{Memory: 64 << 20, Pids: 20, CPU: 0.25})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Join(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if pids, err := g.Procs(); err != nil || len(pids) != 1 || pids[0] != cmd.Process.Pid {
		t.Errorf("got %v, %v; want %d", pids, err, cmd.Process.Pid)
	}
	if s := g.Stats(); len(missing) == 0 && s.Pids != 1 {
		t.Errorf("stats %+v", s)
	}
	for _, s := range g.settings(Limits{Memory: 64 << 20, Pids: 20, CPU: 0.25}) {
		got, err := os.ReadFile(filepath.Join(g.dirs[s.controller], s.file))
		if err != nil && !s.optional || err == nil && strings.TrimSpace(string(got)) != s.value {
			t.Errorf("%s: got %q, %v; want %s", s.file, got, err, s.value)
		}
	}
	if err := g.rmdir(); err == nil {
		t.Error("a group with a process in it was removed")
	}
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	for _, d := range g.dirs {
		if exists(d) {
			t.Errorf("%s is left", d)
		}
	}
}

// What a group counts is what its processes did: it was held back, and its memory is its own and not that of files it read.
func TestStats_of_a_busy_group(t *testing.T) {
	roottest.Require(t, "control groups")
	tree, missing, err := Open(fmt.Sprintf("bailey-test-stats-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	if len(missing) > 0 {
		t.Skipf("this machine does not count everything: %v", missing)
	}
	g, err := tree.Create("p", Limits{Memory: 64 << 20, Pids: 20, CPU: 0.05})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "while :; do :; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Join(cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	var s Stats
	for range 400 {
		if s = g.Stats(); s.Held >= 5 {
			break
		}
		<-time.After(50 * time.Millisecond) // the kernel's own clock
	}
	if s.Held < 5 || s.Periods < s.Held {
		t.Errorf("held back %d times of %d", s.Held, s.Periods)
	}
	if s.Working < 0 || s.Working > 64<<20 || s.OOMKills != 0 || s.CPU == 0 {
		t.Errorf("%+v", s)
	}
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // killed
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
}

func TestSweep_takes_over_what_an_earlier_agent_left(t *testing.T) {
	roottest.Require(t, "control groups")
	name := fmt.Sprintf("bailey-test-sweep-%d", os.Getpid())
	first, _, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	g, err := first.Create("left", Limits{Pids: 50})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "sleep 60 & sleep 60 & sleep 60 & wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Join(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}

	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	second, _, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Sweep("left"); err != nil {
		t.Error(err)
	}
	adopted, err := second.Adopt("left", Limits{Pids: 50})
	if err != nil {
		t.Fatal(err)
	}
	if pids, err := adopted.Procs(); err != nil || len(pids) == 0 || !second.Has("left") {
		t.Errorf("what was to be spared: %v, %v", pids, err)
	}
	if _, err := second.Adopt("missing", Limits{}); err == nil || second.Has("missing") {
		t.Error("a group that is not there was taken over")
	}
	if err := second.Sweep(); err != nil {
		t.Error(err)
	}
	<-done
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	for _, at := range second.h.dir {
		if exists(filepath.Join(at, name)) {
			t.Errorf("%s is left in %s", name, at)
		}
	}
}

// On a machine with v1 controllers the v2 hierarchy is often mounted beside them: entering by clone, freezing, killing and
// removing need no controller, so they are tried for real there too.
func TestGroup_v2_clone_freeze_kill(t *testing.T) {
	roottest.Require(t, "control groups")
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	at, ok := mounts(string(info))[""]
	if !ok {
		t.Skip("no cgroup2 is mounted")
	}
	tree := &Tree{name: fmt.Sprintf("bailey-test-v2-%d", os.Getpid()), h: hierarchy{v2: true, dir: map[string]string{"": at}}}
	if err := tree.create(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("missing: %v", tree.missing())
	g, err := tree.Create("p", Limits{Memory: 64 << 20, Pids: 20, CPU: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	fd, ok := g.FD()
	if !ok {
		t.Fatal("no descriptor to clone into")
	}
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if pids, err := g.Procs(); err != nil || len(pids) != 1 || pids[0] != cmd.Process.Pid {
		t.Errorf("got %v, %v; want %d", pids, err, cmd.Process.Pid)
	}
	for _, on := range []bool{true, false} {
		if err := g.Freeze(on); err != nil {
			t.Error(err)
		}
	}
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
}
