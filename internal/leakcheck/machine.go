package leakcheck

import (
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is a test binary's share in the check of what belongs to the whole machine. All test binaries that run at the
// same time hold a shared lock; the first stores what was there before, the last compares.
type machine struct {
	lock *os.File // nil: not root, or the lock file cannot be had; nothing of the machine is checked then
}

const (
	lockFile = "/run/bailey-leakcheck.lock"
	lockWait = 5 * time.Second // for the moment in which another binary holds the lock alone
)

// joinMachine takes part in the check. The lock file's content is the list of what was there before.
func joinMachine() machine {
	if os.Geteuid() != 0 {
		return machine{}
	}
	f, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return machine{}
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil { // alone: the first
		if writeBaseline(f, takeMachine()) != nil {
			f.Close()
			return machine{}
		}
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // another process is waited for
		if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
			return machine{lock: f}
		}
		if time.Now().After(end) {
			f.Close()
			return machine{}
		}
	}
}

func writeBaseline(f *os.File, entries []string) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strings.Join(entries, "\n")), 0)
	return err
}

// leave ends the share and returns what was left on the machine, if this binary is the last.
func (m machine) leave(patience time.Duration) []string {
	if m.lock == nil {
		return nil
	}
	defer m.lock.Close()
	if unix.Flock(int(m.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil
	}
	data, err := os.ReadFile(lockFile)
	if err != nil {
		return []string{"machine: read the list of what was there before: " + err.Error()}
	}
	before := strings.Split(string(data), "\n")
	return settle(patience, func() []string {
		return difference(before, takeMachine(), "on the machine, by this test binary or one that ran beside it")
	})
}

// takeMachine lists empty cgroups, BPF pins and mounts outside temporary directories that have "bailey" in their name.
// Cgroups with processes in them belong to a running agent.
func takeMachine() []string {
	out := named("/sys/fs/cgroup", func(path string) bool { return !populated(path) })
	out = append(out, named("/sys/fs/bpf", func(string) bool { return true })...)
	for _, m := range mountsBelow("/") {
		if strings.Contains(m, "bailey") && !strings.HasPrefix(m, os.TempDir()) && !strings.Contains(m, "/bt-") {
			out = append(out, "mount "+m)
		}
	}
	sort.Strings(out)
	return out
}

// named returns the topmost entries below root with "bailey" in their name that counts accepts.
func named(root string, counts func(string) bool) []string {
	var out []string
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fs.SkipDir // gone meanwhile, or not ours to read
		}
		if path == root || !strings.Contains(d.Name(), "bailey") {
			return nil
		}
		if counts(path) {
			out = append(out, path)
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	return out
}

// populated reports whether a process is in the cgroup or below it.
func populated(cgroup string) bool {
	found := false
	_ = filepath.WalkDir(cgroup, func(path string, d fs.DirEntry, err error) error {
		if err != nil || found {
			return fs.SkipDir
		}
		if d.Name() == "cgroup.procs" {
			data, err := os.ReadFile(path)
			found = err == nil && len(data) > 0
		}
		return nil
	})
	return found
}

// mountsBelow returns the mount points of this process's mount namespace that are dir or below it.
func mountsBelow(dir string) []string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	prefix := strings.TrimSuffix(dir, "/") + "/"
	var out []string
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], prefix)) {
			out = append(out, f[4])
		}
	}
	sort.Strings(out)
	return out
}
