package packagedb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNone says that no package database was found.
var ErrNone = errors.New("no dpkg or rpm database found")

// Config says where the databases are.
type Config struct {
	Root     string        // root of the file system; default "/"
	Interval time.Duration // how often changes are looked for; default 1 s, which costs a few stat calls
	// Settle is how long after its last write a package manager counts as working; default 10 s. It bridges the moments
	// in which a transaction leaves no other trace that an unprivileged process can see. While one works what it changed is loaded as often.
	Settle time.Duration
	Log    *slog.Logger // default: discard
}

// DB keeps the newest complete Snapshot. Safe for concurrent use.
type DB struct {
	cfg      Config
	snapshot atomic.Pointer[Snapshot]
	changed  atomic.Bool // the databases differ from the snapshot

	mu    sync.Mutex // one load at a time; also guards watch
	watch []func(*Snapshot)
	bad   stamp // the state whose load failed; zero if the last load succeeded
}

// New returns a DB that has loaded nothing yet: Snapshot is nil until Load or Run has finished its first load.
func New(cfg Config) (*DB, error) {
	if cfg.Root == "" {
		cfg.Root = "/"
	}
	if cfg.Interval == 0 {
		cfg.Interval = time.Second
	}
	if cfg.Settle == 0 {
		cfg.Settle = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Interval < 0 || cfg.Settle < 0 {
		return nil, fmt.Errorf("interval and settle must not be negative")
	}
	return &DB{cfg: cfg}, nil
}

// Snapshot returns the newest complete snapshot, nil before the first one.
func (d *DB) Snapshot() *Snapshot { return d.snapshot.Load() }

// Watch calls f after every later load, in the goroutine that loaded.
func (d *DB) Watch(f func(*Snapshot)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watch = append(d.watch, f)
}

// Load reads the databases and swaps the new snapshot in. On an error, and when the databases changed while they were
// read too often to get one consistent state, the old snapshot goes on serving.
func (d *DB) Load(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	const attempts = 3
	for try := 1; ; try++ {
		s, err := d.read()
		now := d.stamp()
		stable := err == nil && now == s.stamp
		if stable || (err == nil && try == attempts) {
			// A package manager at work changes the database all the time. What was read is complete as of some
			// moment of each file, and better than an older state; the next poll sees the difference and loads again.
			d.snapshot.Store(s)
			d.changed.Store(!stable)
			d.bad = stamp{}
			for _, f := range d.watch {
				f(s)
			}
			return nil
		}
		if try == attempts {
			d.bad = now
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// loadRest is how many times as long as a load took none follows it.
const loadRest = 9

// Run loads the databases and loads them again when they have changed, until ctx ends. A package manager at work changes them all the time, and to load
// them each time would take a processor from it: while it holds its lock they are loaded every Settle, and never more than a tenth of the time. A load
// that fails is logged and tried again when the database changes or Settle has passed. It returns nil when ctx ends.
func (d *DB) Run(ctx context.Context) error {
	tick := time.NewTicker(d.cfg.Interval)
	defer tick.Stop()
	var since, retry, rested time.Time // since: the databases differ from what is served
	for {
		s, found, now := d.Snapshot(), d.stamp(), time.Now()
		switch {
		case s != nil && s.stamp == found:
			since = time.Time{}
		case since.IsZero():
			since = now
		}
		if !since.IsZero() {
			d.changed.Store(s != nil)
			due := s == nil || now.Sub(since) >= d.cfg.Settle || !d.isLocked()
			if due && now.After(rested) && (found != d.failed() || now.After(retry)) {
				if err := d.Load(ctx); err != nil && ctx.Err() == nil {
					retry = time.Now().Add(d.cfg.Settle)
					d.cfg.Log.Warn("package database not loaded, the old one goes on serving", "err", err)
				}
				since = time.Time{}
				rested = time.Now().Add(min(loadRest*time.Since(now), d.cfg.Settle))
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// failed returns the state whose load failed, so that it is not tried again at every poll.
func (d *DB) failed() stamp {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bad
}

func (d *DB) read() (*Snapshot, error) {
	start := time.Now()
	b := newBuilder()
	b.s.stamp, b.s.Taken = d.stamp(), start
	found := false
	if _, err := os.Stat(filepath.Join(d.cfg.Root, dpkgDir, "status")); err == nil {
		found = true
		if err := readDpkg(b, d.cfg.Root); err != nil {
			return nil, err
		}
	}
	if path, err := findRPM(d.cfg.Root); err == nil {
		found = true
		if err := readRPM(b, path); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for the rpm database: %w", err)
	}
	if !found {
		return nil, fmt.Errorf("%w below %s", ErrNone, d.cfg.Root)
	}
	s := b.finish()
	s.Took = time.Since(start)
	return s, nil
}
