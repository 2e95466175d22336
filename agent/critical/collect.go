package critical

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"bailey/sdk/packagedb"

	"golang.org/x/sys/unix"
)

// collector gathers one snapshot. Names in it are as seen from Root.
type collector struct {
	cfg       Config
	packages  *packagedb.Snapshot // nil where there is no database
	next      *snapshot
	taken     map[*packagedb.Package]bool
	programs  []string        // whose libraries are yet to be looked at
	seen      map[string]bool // programs and libraries that were looked at
	libraries map[string]string
	libDirs   []string
}

func newCollector(cfg Config, packages *packagedb.Snapshot) *collector {
	return &collector{
		cfg: cfg, packages: packages,
		next:  &snapshot{files: make(map[identity]int64), paths: make(map[string]uint64)},
		taken: make(map[*packagedb.Package]bool), seen: make(map[string]bool), libraries: make(map[string]string),
	}
}

func (c *collector) collect(ctx context.Context) error {
	c.libDirs = c.librarySearchPath()
	running, err := c.runningPrograms()
	if err != nil {
		return err
	}
	for _, name := range running {
		c.addProgram(name)
	}
	for _, name := range roles {
		c.addProgram(name)
	}
	for _, shell := range c.shells() {
		c.addProgram(shell)
	}
	for len(c.programs) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := c.programs[len(c.programs)-1]
		c.programs = c.programs[:len(c.programs)-1]
		c.addLibraries(name)
	}
	for _, name := range data {
		c.addFile(name)
	}
	for _, name := range c.kernelModules() {
		c.addFile(name)
	}
	c.addPackages()
	for _, name := range append(append([]string(nil), c.cfg.Platform...), c.cfg.Extra...) {
		c.addTree(name)
	}
	if len(c.next.files) == 0 {
		return fmt.Errorf("no critical file found below %s", c.cfg.Root)
	}
	return nil
}

func (c *collector) snapshot() *snapshot {
	c.next.stats.Files, c.next.stats.Trees, c.next.stats.Packages = len(c.next.files), len(c.next.trees), len(c.taken)
	return c.next
}

// real returns the name with its symbolic links followed, as seen from Root; the name itself where that fails.
func (c *collector) real(name string) string {
	resolved, err := filepath.EvalSymlinks(filepath.Join(c.cfg.Root, name))
	if err != nil {
		return name
	}
	if c.cfg.Root == "/" {
		return resolved
	}
	if inside, ok := strings.CutPrefix(resolved, filepath.Clean(c.cfg.Root)); ok {
		return inside
	}
	return name
}

// addFile adds one regular file and reports whether it exists.
func (c *collector) addFile(name string) bool {
	name = c.real(name)
	var st unix.Stat_t
	if unix.Stat(filepath.Join(c.cfg.Root, name), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	c.next.files[identity{st.Dev, st.Ino}] = st.Ctim.Nano()
	c.next.paths[name] = st.Dev
	return true
}

// addTree adds a file, or a directory with everything that is or comes below it.
func (c *collector) addTree(name string) {
	name = c.real(path.Clean(name))
	var st unix.Stat_t
	if unix.Stat(filepath.Join(c.cfg.Root, name), &st) != nil {
		return
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		c.next.trees = append(c.next.trees, tree{prefix: name + "/", dev: st.Dev})
		return
	}
	c.addFile(name)
}

// addProgram adds a program; its libraries and its package follow.
func (c *collector) addProgram(name string) {
	name = c.real(name)
	if c.seen[name] || !c.addFile(name) {
		return
	}
	c.seen[name] = true
	c.programs = append(c.programs, name)
	c.takePackage(name)
}

func (c *collector) takePackage(name string) {
	if c.packages == nil {
		return
	}
	if e, ok := c.packages.Lookup(name); ok {
		c.taken[e.Package] = true
	}
}

// addPackages adds the files of the packages that own a program and of those that the distribution cannot be without.
func (c *collector) addPackages() {
	if c.packages == nil {
		return
	}
	for p := range c.packages.Packages() {
		if p.Essential || p.Required {
			c.taken[p] = true
		}
	}
	for e := range c.packages.Entries() {
		if c.taken[e.Package] && !isBallast(e.Path) {
			c.addFile(e.Path)
		}
	}
}

func isBallast(name string) bool {
	for _, prefix := range ballast {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func (c *collector) shells() []string { return c.lines("/etc/shells") }

// lines returns the lines of a small file without comments; none where it cannot be read.
func (c *collector) lines(name string) []string {
	f, err := os.Open(filepath.Join(c.cfg.Root, name))
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []string
	for s := bufio.NewScanner(f); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}
