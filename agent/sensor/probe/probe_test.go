package probe_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bailey/agent/health"
	"bailey/agent/sensor/probe"
	"bailey/internal/leakcheck"
	"bailey/internal/roottest"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestEveryFeatureIsDescribed(t *testing.T) {
	t.Parallel()
	names := make(map[string]bool)
	for _, f := range probe.All() {
		if names[f.Name] {
			t.Errorf("%s is there twice", f.Name)
		}
		names[f.Name] = true
		if f.Gives == "" || f.Kernel == "" || f.Remedy == "" || f.Missing < health.OK || !strings.Contains(f.Name, ".") {
			t.Errorf("%+v is not described", f)
		}
	}
}

func TestProbesAnswerAndRemember(t *testing.T) {
	for _, f := range probe.All() {
		first, again := f.Probe(), f.Probe()
		if first.Supported != (first.Err == nil) || first != again {
			t.Errorf("%s: %+v, then %+v", f.Name, first, again)
		}
		t.Logf("%-32s %-5v %v", f.Name, first.Supported, first.Err)
	}
}

// byName probes one feature.
func byName(t *testing.T, name string) probe.Result {
	t.Helper()
	for _, f := range probe.All() {
		if f.Name == name {
			return f.Probe()
		}
	}
	t.Fatalf("no feature %s", name)
	return probe.Result{}
}

// Each answer is held against the real thing, done here by other calls on a filesystem of this test's own.
func TestFanotifyAnswersAreTrue(t *testing.T) {
	roottest.Require(t, "mounts a tmpfs and marks it")
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH) //nolint:errcheck // the leak check sees it
	file := dir + "/file"
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name        string
		group, mark uint
		mask        uint64
		path        string
	}{
		{"fanotify.permission", unix.FAN_CLASS_CONTENT, unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN_EXEC_PERM, dir},
		{"fanotify.filesystem_mark", unix.FAN_CLASS_NOTIF, unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN, dir},
		{"fanotify.pidfd", unix.FAN_CLASS_CONTENT | unix.FAN_REPORT_PIDFD, unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN_EXEC_PERM, dir},
		{"fanotify.evictable_mark", unix.FAN_CLASS_CONTENT, unix.FAN_MARK_IGNORED_MASK | unix.FAN_MARK_EVICTABLE, unix.FAN_OPEN_EXEC_PERM, file},
		{"fanotify.ignore_mark", unix.FAN_CLASS_CONTENT, unix.FAN_MARK_IGNORE | unix.FAN_MARK_EVICTABLE, unix.FAN_OPEN_EXEC_PERM, file},
		{"fanotify.dfid_name", unix.FAN_CLASS_NOTIF | unix.FAN_REPORT_DFID_NAME, unix.FAN_MARK_FILESYSTEM, unix.FAN_CREATE, dir},
		{"fanotify.target_fid", unix.FAN_CLASS_NOTIF | unix.FAN_REPORT_DFID_NAME_TARGET, unix.FAN_MARK_FILESYSTEM, unix.FAN_RENAME, dir},
	} {
		fd, err := unix.FanotifyInit(c.group|unix.FAN_CLOEXEC, unix.O_RDONLY)
		if err == nil {
			err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|c.mark, c.mask, unix.AT_FDCWD, c.path)
			_ = unix.Close(fd)
		}
		if got := byName(t, c.name); got.Supported != (err == nil) {
			t.Errorf("%s: probe says %+v, marking said %v", c.name, got, err)
		}
	}
}

// The kernel has two ways to ask for its security modules, and the probe uses the newer where there is one.
func TestLSMAnswerIsTrue(t *testing.T) {
	list, err := os.ReadFile("/sys/kernel/security/lsm")
	if err != nil {
		t.Skip("securityfs is not mounted here; it is in the machines of `make vm`")
	}
	want := slices.Contains(strings.Split(strings.TrimSpace(string(list)), ","), "bpf")
	if got := byName(t, "bpf.lsm_active"); got.Supported != want {
		t.Errorf("bpf.lsm_active: %+v, and the modules are %s", got, list)
	}
}

func TestReportSetsWhatMatters(t *testing.T) {
	registry := health.NewRegistry()
	features := probe.All()
	probe.Report(registry, features)
	entries := make(map[string]health.Entry)
	for _, e := range registry.List() {
		entries[e.Component] = e
	}
	for _, f := range features {
		e, ok := entries[f.Name]
		want := f.Missing
		if f.Probe().Supported {
			want = health.OK
		}
		if matters := f.Missing != health.OK; ok != matters || ok && (e.Status != want || (e.Remedy == "") != (want == health.OK)) {
			t.Errorf("%s has entry %+v", f.Name, e)
		}
	}
}

func TestForbiddenIsNotMissing(t *testing.T) {
	t.Parallel()
	if got, want := probe.Forbidden(unix.EPERM), os.Geteuid() != 0; got != want {
		t.Errorf("Forbidden(EPERM) = %v for uid %d", got, os.Geteuid())
	}
	if probe.Forbidden(errors.New("other")) {
		t.Error("any error is a want of privilege")
	}
}
