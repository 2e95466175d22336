package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuPeriod is the span over which processor time is shared out, in microseconds.
const cpuPeriod = 100_000

// removeFor is how long Remove waits for killed processes to be gone.
const removeFor = 3 * time.Second

// Group is one bounded set of processes. Safe for concurrent use but for Remove.
type Group struct {
	v2   bool
	fd   int               // v2: the directory, for a clone straight into it
	dirs map[string]string // controller → directory; "" for v2
}

// FD returns the directory's descriptor that clone3 takes, and false on v1, where Join is the only way in.
func (g *Group) FD() (int, bool) { return g.fd, g.v2 && g.fd >= 0 }

// Join moves a process with all its threads into the group.
func (g *Group) Join(pid int) error {
	for _, d := range g.dirs {
		if err := write(filepath.Join(d, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("join control group: %w", err)
		}
	}
	return nil
}

type setting struct {
	controller, file, value string
	optional                bool // the kernel may lack it
}

func (g *Group) limit(l Limits) error {
	for _, s := range g.settings(l) {
		d, ok := g.dirs[s.controller]
		if g.v2 {
			d, ok = g.dirs[""], true
		}
		if !ok {
			continue // reported by Tree.missing
		}
		file := filepath.Join(d, s.file)
		if _, err := os.Stat(file); err != nil {
			continue // the controller is not enabled here: reported likewise
		}
		if err := write(file, s.value); err != nil && !s.optional {
			return fmt.Errorf("set %s to %s: %w", s.file, s.value, err)
		}
	}
	return nil
}

func (g *Group) settings(l Limits) []setting {
	quota := max(int64(l.CPU*cpuPeriod), 1000)
	mem, pids := strconv.FormatInt(l.Memory, 10), strconv.Itoa(l.Pids)
	var out []setting
	add := func(on bool, s ...setting) {
		if on {
			out = append(out, s...)
		}
	}
	if g.v2 {
		add(l.Memory > 0, setting{file: "memory.max", value: mem}, setting{file: "memory.swap.max", value: "0", optional: true},
			setting{file: "memory.oom.group", value: "1", optional: true})
		add(l.Pids > 0, setting{file: "pids.max", value: pids})
		add(l.CPU > 0, setting{file: "cpu.max", value: fmt.Sprintf("%d %d", quota, cpuPeriod)})
		return out
	}
	add(l.Memory > 0, setting{controller: "memory", file: "memory.limit_in_bytes", value: mem},
		setting{controller: "memory", file: "memory.memsw.limit_in_bytes", value: mem, optional: true},
		setting{controller: "memory", file: "memory.swappiness", value: "0", optional: true})
	add(l.Pids > 0, setting{controller: "pids", file: "pids.max", value: pids})
	add(l.CPU > 0, setting{controller: "cpu", file: "cpu.cfs_period_us", value: strconv.Itoa(cpuPeriod)},
		setting{controller: "cpu", file: "cpu.cfs_quota_us", value: strconv.FormatInt(quota, 10)})
	return out
}

// Procs lists the processes in the group.
func (g *Group) Procs() ([]int, error) {
	seen := make(map[int]bool)
	var out []int
	for _, d := range g.dirs {
		b, err := os.ReadFile(filepath.Join(d, "cgroup.procs"))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list control group: %w", err)
		}
		for _, w := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(w); err == nil && pid > 0 && !seen[pid] {
				seen[pid] = true
				out = append(out, pid)
			}
		}
	}
	return out, nil
}

// Freeze stops every process in the group where it is, or lets it go on.
func (g *Group) Freeze(on bool) error {
	d, file, value := g.dirs["freezer"], "freezer.state", "THAWED"
	if on {
		value = "FROZEN"
	}
	if g.v2 {
		d, file, value = g.dirs[""], "cgroup.freeze", strconv.Itoa(btoi(on))
	}
	if d == "" {
		return fmt.Errorf("freeze control group: %w", errors.ErrUnsupported)
	}
	return write(filepath.Join(d, file), value)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Kill sends SIGKILL to every process in the group, also to those that are being forked meanwhile.
func (g *Group) Kill() error {
	if g.v2 {
		err := write(filepath.Join(g.dirs[""], "cgroup.kill"), "1")
		if err == nil || errors.Is(err, os.ErrNotExist) && !exists(g.dirs[""]) {
			return nil
		}
	}
	// Frozen processes cannot fork, so one pass gets them all; without a freezer a few passes catch up with a fork bomb,
	// because its number is bounded.
	frozen := g.Freeze(true) == nil
	for range 20 {
		pids, err := g.Procs()
		if err != nil || len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // gone already is what is wanted
		}
		if frozen {
			break
		}
		<-time.After(time.Millisecond)
	}
	if frozen {
		return g.Freeze(false)
	}
	return nil
}

// Leave gives the group up as it is.
func (g *Group) Leave() {
	if g.fd >= 0 {
		_ = unix.Close(g.fd)
		g.fd = -1
	}
}

// Remove removes the group, waiting a short while for killed processes to be gone.
func (g *Group) Remove() error {
	g.Leave()
	deadline := time.Now().Add(removeFor)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := g.rmdir()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		<-time.After(wait)
	}
}

func (g *Group) rmdir() error {
	var errs []error
	for _, d := range g.dirs {
		if err := unix.Rmdir(d); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("remove control group %s: %w", d, err))
		}
	}
	return errors.Join(errs...)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Stats reads what the group uses. What the machine does not count is 0.
func (g *Group) Stats() Stats {
	var s Stats
	at := func(c, file string) string { return filepath.Join(g.dirs[c], file) }
	// A controller that is missing was reported when the tree was opened; its figures stay 0.
	if g.v2 {
		s.Memory, _ = readInt(at("", "memory.current"))
		usec, _ := readField(at("", "cpu.stat"), "usage_usec")
		s.CPU = time.Duration(usec) * time.Microsecond
		s.OOMKills, _ = readField(at("", "memory.events"), "oom_kill")
		s.MemoryAt, _ = readField(at("", "memory.events"), "max")
		s.Working = sum(at("", "memory.stat"), "anon", "shmem")
		s.Periods, _ = readField(at("", "cpu.stat"), "nr_periods")
		s.Held, _ = readField(at("", "cpu.stat"), "nr_throttled")
	} else {
		s.Memory, _ = readInt(at("memory", "memory.usage_in_bytes"))
		nsec, _ := readInt(at("cpuacct", "cpuacct.usage"))
		s.CPU = time.Duration(nsec)
		s.OOMKills, _ = readField(at("memory", "memory.oom_control"), "oom_kill")
		s.MemoryAt, _ = readInt(at("memory", "memory.failcnt"))
		s.Working = sum(at("memory", "memory.stat"), "total_rss", "total_shmem")
		s.Periods, _ = readField(at("cpu", "cpu.stat"), "nr_periods")
		s.Held, _ = readField(at("cpu", "cpu.stat"), "nr_throttled")
	}
	c := "pids"
	if g.v2 {
		c = ""
	}
	pids, _ := readInt(at(c, "pids.current"))
	s.Pids = int(pids)
	return s
}

// sum adds up fields of a "key number" file; what it does not have is nothing.
func sum(file string, keys ...string) (total int64) {
	for _, k := range keys {
		n, err := readField(file, k)
		if err == nil {
			total += n
		}
	}
	return total
}
