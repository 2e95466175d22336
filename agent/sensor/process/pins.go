package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bailey/internal/bpffs"
)

// The names in the directory of pins. A bpffs allows no dots.
const (
	readerName       = "reader" // an empty directory: whoever has locked it reads the rings
	generationPrefix = "process-"
	unfinishedPrefix = "new-" // a generation that is being pinned
	droppedPrefix    = "old-" // one that is being removed
)

const (
	setupWait  = 10 * time.Second     // for another sensor's New or Close
	readerPoll = 2 * time.Millisecond // how often it is seen whether the one before has stopped reading
)

var errForeign = errors.New("not a directory that only this user may change")

// pins is the directory in a bpffs where generations of programs outlive their agent. It belongs to the sensors of one agent
// alone: what else is in it is removed. Safe for concurrent use.
//
// Two locks, which end with the process that holds them: the directory's own while somebody makes or removes generations,
// and reader's while somebody reads. A generation is locked, shared, by everybody who has it open.
type pins struct {
	dir string

	mu     sync.Mutex // guards what follows
	reader *os.File
	mine   bool // the lock on reader is held
	notes  []string
}

// openPins makes the directory fit for pins. The caller holds no lock afterwards.
func openPins(dir string) (*pins, error) {
	if err := bpffs.Check(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	p := &pins{dir: dir}
	if err := p.make(); err != nil {
		return nil, err
	}
	return p, nil
}

// make makes the directory, in the place of what must not be trusted.
func (p *pins) make() error {
	err := private(p.dir)
	if errors.Is(err, errForeign) {
		p.note("replaced %s, which others may change", p.dir)
		if err := os.RemoveAll(p.dir); err != nil {
			return fmt.Errorf("remove foreign pins: %w", err)
		}
		err = os.ErrNotExist
	}
	if errors.Is(err, os.ErrNotExist) {
		if err = os.Mkdir(p.dir, 0o700); errors.Is(err, os.ErrExist) {
			err = nil // another sensor was faster
		}
	}
	if err != nil {
		return fmt.Errorf("make the directory for pins: %w", err)
	}
	return bpffs.Check(p.dir)
}

// private returns errForeign unless path is a directory that only this user may change.
func private(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != uint32(os.Geteuid()) || st.Mode&0o022 != 0 {
		return errForeign
	}
	return nil
}

func (p *pins) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notes = append(p.notes, fmt.Sprintf(format, args...))
}

func (p *pins) noted() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.notes
}

// setup locks the directory for changes and returns what unlocks it.
func (p *pins) setup() (unlock func(), err error) {
	for until := time.Now().Add(setupWait); ; time.Sleep(time.Millisecond) { //nolint:forbidigo // another process is waited for
		d, err := openDir(p.dir)
		if errors.Is(err, os.ErrNotExist) { // another sensor's Close was the last
			if err := p.make(); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if lock(d, unix.LOCK_EX) && sameFile(d, p.dir) {
			return func() { _ = d.Close() }, nil
		}
		_ = d.Close()
		if time.Now().After(until) {
			return nil, fmt.Errorf("lock %s: another sensor holds it: %w", p.dir, os.ErrDeadlineExceeded)
		}
	}
}

func openDir(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// lock locks an open directory, if nobody has it locked otherwise.
func lock(d *os.File, how int) bool {
	for {
		if err := unix.Flock(int(d.Fd()), how|unix.LOCK_NB); !errors.Is(err, unix.EINTR) {
			return err == nil
		}
	}
}

// sameFile says whether path still is the open file.
func sameFile(d *os.File, path string) bool {
	a, err := d.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// takeReader tries to become the one who reads. Only with the directory locked for changes, or with a generation open.
func (p *pins) takeReader() (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mine {
		return true, nil
	}
	if p.reader == nil {
		path := filepath.Join(p.dir, readerName)
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return false, fmt.Errorf("make the readers' lock: %w", err)
		}
		d, err := openDir(path)
		if err != nil {
			return false, err
		}
		p.reader = d
	}
	p.mine = lock(p.reader, unix.LOCK_EX)
	return p.mine, nil
}

// awaitReader waits until this sensor is the one who reads, or ctx ends, or stop says so; then it returns false.
func (p *pins) awaitReader(ctx context.Context, stop func() bool) (bool, error) {
	tick := time.NewTicker(readerPoll)
	defer tick.Stop()
	for ctx.Err() == nil && !stop() {
		if mine, err := p.takeReader(); mine || err != nil {
			return mine, err
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return false, nil
}

func (p *pins) reads() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mine
}

// close lets another sensor read. It removes nothing.
func (p *pins) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reader != nil {
		_ = p.reader.Close()
	}
	p.reader, p.mine = nil, false
}

// generation is the pins of one load of the programs.
type generation struct {
	name    string // in the directory
	schema  string
	created uint64
	lock    *os.File // held, shared, while it is open
}

func generationName(schema string, created uint64) string {
	return generationPrefix + schema + "-" + strconv.FormatUint(created, 16)
}

// parseGeneration reads the name of a generation's directory.
func parseGeneration(name string) (g generation, ok bool) {
	rest, ok := strings.CutPrefix(name, generationPrefix)
	if !ok {
		return g, false
	}
	schema, text, ok := strings.Cut(rest, "-")
	created, err := strconv.ParseUint(text, 16, 64)
	g = generation{name: name, schema: schema, created: created}
	return g, ok && err == nil && created != 0 && name == generationName(schema, created)
}

// list returns the generations, and removes what is none and nobody uses. Only with the directory locked.
func (p *pins) list() ([]generation, error) {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	var all []generation
	for _, e := range entries {
		path := filepath.Join(p.dir, e.Name())
		if e.Name() == readerName && private(path) == nil {
			continue
		}
		if g, ok := parseGeneration(e.Name()); ok && private(path) == nil {
			all = append(all, g)
			continue
		}
		if !p.unused(path) {
			continue
		}
		if !strings.HasPrefix(e.Name(), droppedPrefix) {
			p.note("removed %s, which is no complete set of pins", e.Name())
		}
		if err := os.RemoveAll(path); err != nil {
			p.note("%s cannot be removed: %v", e.Name(), err)
		}
	}
	return all, nil
}

// unused says whether no living process has a path of the directory open.
func (p *pins) unused(path string) bool {
	d, err := openDir(path)
	if err != nil {
		return true // not a directory
	}
	defer d.Close()
	return lock(d, unix.LOCK_EX)
}

// open locks a generation as one that is used.
func (p *pins) open(g *generation) error {
	d, err := openDir(filepath.Join(p.dir, g.name))
	if err != nil {
		return err
	}
	if !lock(d, unix.LOCK_SH) {
		_ = d.Close()
		return fmt.Errorf("lock %s: another sensor removes it: %w", g.name, os.ErrDeadlineExceeded)
	}
	g.lock = d
	return nil
}

func (g *generation) close() {
	if g != nil && g.lock != nil {
		_ = g.lock.Close()
		g.lock = nil
	}
}

// drop removes a generation's pins, unless another process uses it, and reports whether it did. What it holds open stays
// open. Only with the directory locked.
func (p *pins) drop(g *generation) (bool, error) {
	if g.lock == nil && p.open(g) != nil || !lock(g.lock, unix.LOCK_EX) {
		if g.lock != nil {
			_ = lock(g.lock, unix.LOCK_SH)
		}
		return false, nil
	}
	// At once: a generation is there or it is not.
	from, to := filepath.Join(p.dir, g.name), filepath.Join(p.dir, droppedPrefix+strconv.FormatUint(g.created, 16))
	if err := os.Rename(from, to); errors.Is(err, os.ErrNotExist) {
		return true, nil // by somebody else
	} else if err != nil {
		return false, fmt.Errorf("remove pins: %w", err)
	}
	if err := os.RemoveAll(to); err != nil {
		return true, fmt.Errorf("remove pins: %w", err)
	}
	return true, nil
}

// clear removes the directory, if no generation is left in it.
func (p *pins) clear() error {
	left, err := p.list()
	if err != nil || len(left) > 0 {
		return err
	}
	for _, path := range []string{filepath.Join(p.dir, readerName), p.dir} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			return fmt.Errorf("remove pins: %w", err)
		}
	}
	return nil
}
