// Package cgroup bounds what one product consumes, through control groups v2 or, where the controllers are there, v1. It
// knows nothing of products: a Tree is one agent's parent group, a Group is one bounded set of processes below it.
//
// Invariant: a Group is bounded before a process enters it, and Remove succeeds only when no process is left in it.
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

// Limits of one group. Zero means no limit of that kind.
type Limits struct {
	Memory int64   // bytes; swap is not used beyond it
	Pids   int     // processes and threads
	CPU    float64 // cores
}

// Stats is what a group has used.
type Stats struct {
	Memory   int64         // bytes now
	CPU      time.Duration // since the group was made
	OOMKills int64         // processes killed for want of memory, since the group was made
	Working  int64         // bytes of memory that cannot be given up: without the files that it read
	MemoryAt int64         // how often it was at its memory limit, since the group was made
	Periods  int64         // spans of time in which it wanted the processor, since the group was made
	Held     int64         // of those, how many it was held back in because it had used its share
	Pids     int           // now
}

// Tree is the parent group of one agent's products. Safe for concurrent use after Open.
type Tree struct {
	name string
	h    hierarchy
}

// hierarchy is where the tree lives: the directory of each controller it needs.
type hierarchy struct {
	v2  bool
	dir map[string]string // controller → mount point; for v2 one entry, ""
}

// controllers that bound a product, and what is missing without each.
var controllers = []struct{ name, bounds string }{
	{"memory", "memory"}, {"pids", "the number of processes"}, {"cpu", "processor time"},
}

// Missing is a limit that cannot be kept on this machine.
type Missing struct{ Controller, Bounds string }

// Open finds where a tree called name can be, makes it, and says which limits this machine cannot keep. A leftover tree of
// the same name is taken over: see Sweep.
func Open(name string) (*Tree, []Missing, error) {
	if name == "" || strings.ContainsAny(name, "/.") {
		return nil, nil, fmt.Errorf("control group %q: bad name", name)
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, nil, fmt.Errorf("find control groups: %w", err)
	}
	t := &Tree{name: name, h: choose(mounts(string(info)))}
	if len(t.h.dir) == 0 {
		return nil, nil, errors.New("find control groups: none is mounted")
	}
	if err := t.create(); err != nil {
		return nil, nil, errors.Join(err, t.Close())
	}
	return t, t.missing(), nil
}

// mounts cuts the control group mounts from a mountinfo: controller → mount point, "" for v2.
func mounts(info string) map[string]string {
	out := make(map[string]string)
	for line := range strings.Lines(info) {
		left, right, ok := strings.Cut(strings.TrimSpace(line), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 {
			continue
		}
		switch r[0] {
		case "cgroup2":
			out[""] = l[4]
		case "cgroup":
			for _, c := range strings.Split(r[2], ",") {
				out[c] = l[4]
			}
		}
	}
	return out
}

// choose prefers v2 when it has the controllers; a hybrid machine has them on v1.
func choose(m map[string]string) hierarchy {
	if root, ok := m[""]; ok {
		have := readWords(filepath.Join(root, "cgroup.controllers"))
		if have["memory"] && have["pids"] {
			return hierarchy{v2: true, dir: map[string]string{"": root}}
		}
	}
	h := hierarchy{dir: make(map[string]string)}
	for _, c := range []string{"memory", "pids", "cpu", "cpuacct", "freezer"} {
		if at, ok := m[c]; ok {
			h.dir[c] = at
		}
	}
	if root, ok := m[""]; ok && len(h.dir) == 0 {
		return hierarchy{v2: true, dir: map[string]string{"": root}}
	}
	return h
}

func readWords(file string) map[string]bool {
	b, _ := os.ReadFile(file) // unreadable: no words, and the missing controllers are reported
	out := make(map[string]bool)
	for _, w := range strings.Fields(string(b)) {
		out[w] = true
	}
	return out
}

func (t *Tree) create() error {
	for _, at := range t.h.dir {
		if err := os.Mkdir(filepath.Join(at, t.name), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make control group: %w", err)
		}
		if t.h.v2 {
			// Each may be refused alone (not there, or a parent that does not pass it on): missing() looks at the result.
			for _, c := range controllers {
				_ = write(filepath.Join(at, "cgroup.subtree_control"), "+"+c.name)
				_ = write(filepath.Join(at, t.name, "cgroup.subtree_control"), "+"+c.name)
			}
		}
	}
	return nil
}

func (t *Tree) missing() []Missing {
	var out []Missing
	for _, c := range controllers {
		_, ok := t.h.dir[c.name]
		if t.h.v2 {
			ok = readWords(filepath.Join(t.h.dir[""], t.name, "cgroup.subtree_control"))[c.name]
		}
		if !ok {
			out = append(out, Missing{Controller: c.name, Bounds: c.bounds})
		}
	}
	return out
}

// Version is 2 or 1.
func (t *Tree) Version() int {
	if t.h.v2 {
		return 2
	}
	return 1
}

// Create makes a group with limits.
func (t *Tree) Create(name string, l Limits) (*Group, error) {
	g := t.group(name)
	for _, d := range g.dirs {
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, errors.Join(fmt.Errorf("make control group: %w", err), g.Remove())
		}
	}
	if err := g.limit(l); err != nil {
		return nil, errors.Join(err, g.Remove())
	}
	if g.v2 {
		fd, err := unix.Open(g.dirs[""], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open control group: %w", err), g.Remove())
		}
		g.fd = fd
	}
	return g, nil
}

// Adopt takes over a group that an earlier agent made, with the processes in it, and sets its limits again.
func (t *Tree) Adopt(name string, l Limits) (*Group, error) {
	g := t.group(name)
	for _, d := range g.dirs {
		if !exists(d) {
			return nil, fmt.Errorf("take control group over: %s is not there", d)
		}
	}
	if err := g.limit(l); err != nil {
		return nil, err
	}
	return g, nil
}

// Has reports whether there is a group of this name.
func (t *Tree) Has(name string) bool {
	for _, d := range t.group(name).dirs {
		if !exists(d) {
			return false
		}
	}
	return true
}

func (t *Tree) group(name string) *Group {
	g := &Group{v2: t.h.v2, fd: -1, dirs: make(map[string]string)}
	for c, at := range t.h.dir {
		g.dirs[c] = filepath.Join(at, t.name, name)
	}
	return g
}

// Sweep kills and removes every group below the tree but those to spare: what an earlier agent of the same name left behind.
// It must not run beside a living one.
func (t *Tree) Sweep(spare ...string) error {
	names := make(map[string]bool)
	for _, at := range t.h.dir {
		entries, err := os.ReadDir(filepath.Join(at, t.name))
		if err != nil {
			return fmt.Errorf("sweep control groups: %w", err)
		}
		for _, e := range entries {
			if e.IsDir() {
				names[e.Name()] = true
			}
		}
	}
	for _, n := range spare {
		delete(names, n)
	}
	var errs []error
	for n := range names {
		g := t.group(n)
		errs = append(errs, g.Kill(), g.Remove())
	}
	return errors.Join(errs...)
}

// Close removes the tree; its groups must be gone.
func (t *Tree) Close() error {
	var errs []error
	for _, at := range t.h.dir {
		if err := os.Remove(filepath.Join(at, t.name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove control group: %w", err))
		}
	}
	return errors.Join(errs...)
}

func write(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

func readInt(file string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// readField returns the number after key in a "key number" file.
func readField(file, key string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && k == key {
			return strconv.ParseInt(v, 10, 64)
		}
	}
	return 0, fmt.Errorf("%s: no %s", file, key)
}
