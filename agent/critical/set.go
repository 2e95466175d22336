package critical

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/sdk/packagedb"
)

// Config says what the set is computed from.
type Config struct {
	Root     string        // root of the file system; default "/"
	Proc     string        // default "/proc"
	Platform []string      // files and directories of the platform and of the products; a directory stands for all below it
	Extra    []string      // further files and directories, from the operator's configuration
	Interval time.Duration // how often the set is computed anew without a cause; default 5 min
	Log      *slog.Logger  // default: discard
	Health   *health.Registry
	OnChange func() // called by Run when packages were installed or removed and the set is new; may be nil
	Keeper   Keeper // hands the set to the next agent, which need not be without one until it has computed its own; may be nil
}

// Keeper holds descriptors that outlive the agent.
type Keeper interface {
	// Keep makes the keeper hold a duplicate of fd under name, in place of what it held there.
	Keep(name string, fd int) error
	// Take returns what an earlier agent left under name; the caller owns it.
	Take(name string) (fd int, ok bool)
}

// Stats describes the present set.
type Stats struct {
	Files    int           // files known by identity
	Trees    int           // directories that stand for all below them
	Packages int           // packages whose files are in it
	Took     time.Duration // how long computing it took
	Computed time.Time
}

// Set is the critical set. Safe for concurrent use.
type Set struct {
	cfg         Config
	packages    *packagedb.DB
	transaction transaction
	current     atomic.Pointer[snapshot]
	changed     chan struct{} // the package database was loaded; capacity 1
	first       chan struct{} // closed when the set is known, or Run has tried to compute it
	known       sync.Once     // closes first
	mu          sync.Mutex    // one refresh at a time
	ready       bool          // the package database was tried; guarded by mu
}

// identity is one file; an inode number alone is used again for another file.
type identity struct {
	dev, ino uint64
}

// snapshot is one computed set. Immutable.
type snapshot struct {
	files map[identity]int64 // change time in nanoseconds
	paths map[string]uint64  // device
	trees []tree
	stats Stats
}

// tree is a directory that stands for everything below it, on its own file system.
type tree struct {
	prefix string // ends with a slash
	dev    uint64
}

// New returns a set that is empty until Refresh or Run computed it.
func New(cfg Config) (*Set, error) {
	if cfg.Root == "" {
		cfg.Root = "/"
	}
	if cfg.Proc == "" {
		cfg.Proc = "/proc"
	}
	if cfg.Interval == 0 {
		cfg.Interval = 5 * time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Health == nil {
		cfg.Health = health.NewRegistry()
	}
	for _, p := range append(append([]string(nil), cfg.Platform...), cfg.Extra...) {
		if !path.IsAbs(p) || path.Clean(p) == "/" {
			return nil, fmt.Errorf("critical path %q: must be absolute and not the root", p)
		}
	}
	db, err := packagedb.New(packagedb.Config{Root: cfg.Root, Log: cfg.Log})
	if err != nil {
		return nil, fmt.Errorf("open package database: %w", err)
	}
	s := &Set{cfg: cfg, packages: db, changed: make(chan struct{}, 1), first: make(chan struct{})}
	s.current.Store(&snapshot{})
	if inherited := s.inherit(); inherited != nil {
		s.current.Store(inherited)
		s.tried()
	}
	db.Watch(func(*packagedb.Snapshot) {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	})
	return s, nil
}

// Contains reports whether f is critical: it is one of the files of the set, unchanged, or lies under the name of one on
// the same file system (a package manager replaces files by new ones), belonging to root and writable by root alone.
// A name alone is not enough: in a container it may be anybody's.
func (s *Set) Contains(f *event.File) bool {
	if f == nil {
		return false
	}
	now := s.current.Load()
	if ctime, ok := now.files[identity{f.Dev, f.Ino}]; ok && ctime == f.CTime {
		return true
	}
	if f.Path == "" || f.Deleted {
		return false
	}
	if dev, ok := now.paths[f.Path]; ok && dev == f.Dev && packagedb.RootOnly(f.UID, f.Mode) {
		return true
	}
	for _, t := range now.trees {
		if t.dev == f.Dev && strings.HasPrefix(f.Path, t.prefix) {
			return true
		}
	}
	return false
}

// Paths returns the names of the set's files, in order; not those below its trees.
func (s *Set) Paths() []string { return slices.Sorted(maps.Keys(s.current.Load().paths)) }

// Below returns a file of the set that lies below a directory, by its name.
func (s *Set) Below(dir string) (example string, found bool) {
	now := s.current.Load()
	prefix := strings.TrimSuffix(dir, "/") + "/"
	for p := range now.paths {
		if strings.HasPrefix(p, prefix) {
			return p, true
		}
	}
	for _, t := range now.trees {
		if strings.HasPrefix(t.prefix, prefix) || strings.HasPrefix(prefix, t.prefix) {
			return strings.TrimSuffix(t.prefix, "/"), true
		}
	}
	return "", false
}

// Stats describes the present set.
func (s *Set) Stats() Stats { return s.current.Load().stats }

func (s *Set) tried() { s.known.Do(func() { close(s.first) }) }

// Tried is closed once the set of an earlier agent is in force, or Run has computed one, or tried to. Before that nothing is known to be critical, so nobody may be in
// a position to deny.
func (s *Set) Tried() <-chan struct{} { return s.first }

// Refresh computes the set anew. On an error the old one stays.
func (s *Set) Refresh(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready {
		s.ready = true
		if err := s.packages.Load(ctx); err != nil {
			s.reportPackages(err)
		}
	}
	start := time.Now()
	c := newCollector(s.cfg, s.packages.Snapshot())
	if err := c.collect(ctx); err != nil {
		return fmt.Errorf("compute critical set: %w", err)
	}
	next := c.snapshot()
	next.stats.Took, next.stats.Computed = time.Since(start), start
	s.current.Store(next)
	s.bequeath(next)
	if s.packages.Snapshot() != nil {
		s.reportPackages(nil)
	}
	return nil
}

// Run computes the set, and again whenever the package database changes and every Interval, until ctx ends.
func (s *Set) Run(ctx context.Context) error {
	var watching sync.WaitGroup
	defer watching.Wait()
	tick := time.NewTicker(s.cfg.Interval)
	defer tick.Stop()
	packages := false // whether they are why the set is computed again
	for first := true; ; first = false {
		err := s.Refresh(ctx)
		if err != nil && ctx.Err() == nil {
			s.cfg.Health.Set(health.Entry{Component: "critical", Status: health.Degraded,
				Summary: "the critical set could not be computed: " + err.Error(),
				Remedy:  "see the agent's log; the set computed before goes on counting"})
		}
		if err == nil && packages && s.cfg.OnChange != nil {
			s.cfg.OnChange()
		}
		if first {
			s.tried()
			watching.Go(func() { _ = s.packages.Run(ctx) }) // nil when ctx ends; failed loads are in its log
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			packages = false
		case <-s.changed:
			packages = true
		}
	}
}

func (s *Set) reportPackages(err error) {
	e := health.Entry{Component: "critical", Status: health.OK, Summary: "the critical set is computed from the running system and the package database"}
	if err != nil {
		e.Status = health.Degraded
		e.Summary = "the critical set is computed without a package database: " + err.Error()
		e.Remedy = "name further files under [critical] in the configuration"
		if !errors.Is(err, packagedb.ErrNone) {
			e.Remedy = "repair the package database (dpkg --audit, rpm --rebuilddb)"
		}
	}
	s.cfg.Health.Set(e)
}
