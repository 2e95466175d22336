package product

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/product/cgroup"
	"bailey/agent/product/manifest"
	"bailey/internal/boottime"
)

// State is where a product is in its life.
type State string

// The states.
const (
	Starting State = "starting"
	Running  State = "running"
	Stopping State = "stopping"
	Stopped  State = "stopped"
	Waiting  State = "backoff" // it ended and will be started again
	Failed   State = "failed"  // it is off until an operator does something
)

// Status is what is observed of a product.
type Status struct {
	State        State
	Reason       string    // why it is in this state; empty when there is nothing to say
	Since        time.Time // in this state
	PID          int       // 0 when not running
	Restarts     uint32    // since the agent started
	OOMKills     int64     // of the present run
	Memory       int64     // bytes
	CPU          time.Duration
	StateBytes   int64 // in its state directory
	StateFull    bool  // its state directory is over the limit and read-only
	LinesDropped uint64
	Strain       string // what it lacks of memory or processor time; empty if nothing
}

// View is one product as an operator sees it.
type View struct {
	Record
	Manifest *manifest.Manifest // nil when the record or the manifest cannot be read
	Status   Status
	Folder   string // the current release
}

// unit is one product that is known. Its watcher is the only one that starts and stops it.
type unit struct {
	m    *Manager
	name string
	dir  string
	log  *logFile

	place string        // the name of its control group, and of what the keeper has of it
	over  chan struct{} // closed when nobody watches it any more

	watched bool // guarded by Manager.mu

	mu       sync.Mutex
	role     role
	present  *run // that runs, with its session; nil when none does
	record   Record
	manifest *manifest.Manifest
	broken   error
	status   Status
	wanted   bool // it shall run
	gone     bool // it is not known any more
	restart  int  // counts what asks for a restart: changes of the record, and the operator
	current  int  // what restart was when the present or last run began
	changed  chan struct{}
	wake     chan struct{}
	heir     *heir         // an earlier agent's run of it, to be taken over
	group    *cgroup.Group // of the present run, nil when there is none
	sampled  cgroup.Stats  // what it had counted at the last look
	calm     int           // looks without strain since the last one with
}

func (m *Manager) newUnit(name string) *unit {
	dir := filepath.Join(m.dir, name)
	return &unit{
		m: m, name: name, dir: dir, place: name, over: make(chan struct{}), log: newLogFile(filepath.Join(dir, logName), 4<<20),
		status: Status{State: Stopped, Since: time.Now()}, changed: make(chan struct{}), wake: make(chan struct{}, 1),
	}
}

// load reads record and manifest from disk. What cannot be read leaves the unit failed and the files alone.
func (u *unit) load() {
	record, err := readRecord(u.dir)
	var mf *manifest.Manifest
	if err == nil && !record.Removed {
		mf, err = manifest.Load(filepath.Join(u.dir, releasesDir, record.Release))
	}
	u.mu.Lock()
	u.record, u.manifest, u.broken = record, mf, err
	u.restart++
	u.record.Name = u.name
	u.wanted = err == nil && record.Enabled && !record.Removed
	if err == nil {
		u.log.limit(int64(record.Grants.Limits.Log))
	}
	u.mu.Unlock()
	if err != nil {
		u.set(Failed, err.Error())
	}
}

func (u *unit) removed() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.broken == nil && u.record.Removed
}

func (u *unit) view() View {
	u.mu.Lock()
	defer u.mu.Unlock()
	v := View{Record: u.record, Manifest: u.manifest, Status: u.status}
	v.Settings = maps.Clone(u.record.Settings)
	v.Status.LinesDropped = u.log.Dropped()
	if u.record.Release != "" {
		v.Folder = filepath.Join(u.dir, releasesDir, u.record.Release)
	}
	return v
}

// set changes the state, tells the health registry and emits the event.
func (u *unit) set(s State, reason string) { u.setSince(s, reason, time.Now()) }

// setSince is set for a state that began earlier.
func (u *unit) setSince(s State, reason string, since time.Time) {
	u.mu.Lock()
	u.status.State, u.status.Reason, u.status.Since = s, reason, since
	if s != Running {
		u.status.PID = 0
	}
	detail := u.detail(s, reason)
	broken := u.broken != nil
	close(u.changed)
	u.changed = make(chan struct{})
	u.mu.Unlock()

	u.tell(healthOf(u.name, s, reason, broken))
	u.m.cfg.Emit(&event.Event{Kind: event.Product, Time: boottime.Now(), Product: detail})
}

// tell sets a health entry about the product. What runs beside it has no health of its own.
func (u *unit) tell(e health.Entry) {
	if !u.isBeside() {
		u.m.cfg.Health.Set(e)
	}
}

// authority is what the grants give; the hub may know of less. u.mu is held.
func (u *unit) authority() string {
	switch {
	case u.status.State != Running:
		return "off"
	case u.record.Grants.Live && u.role == live:
		return "live"
	}
	return "shadow"
}

func healthOf(name string, s State, reason string, broken bool) health.Entry {
	e := health.Entry{Component: "product." + name, Status: health.OK, Summary: string(s)}
	switch {
	case broken:
		e.Status, e.Summary = health.Failed, "its files cannot be read: "+reason
		e.Remedy = fmt.Sprintf("install %s again; its old files were left as they are", name)
	case s == Failed:
		e.Status, e.Summary = health.Failed, reason
		e.Remedy = fmt.Sprintf("see `bailey product logs %s`, then `bailey product start %s`, or remove it", name, name)
	case s == Waiting:
		e.Status, e.Summary = health.Degraded, "it is started again soon: "+reason
		e.Remedy = fmt.Sprintf("none needed now; see `bailey product logs %s` if it goes on", name)
	}
	return e
}

// nudge makes the watcher look at what is wanted.
func (u *unit) nudge() {
	select {
	case u.wake <- struct{}{}:
	default: // it is going to look anyway
	}
}

// setEnabled remembers whether the product shall run, and makes it so.
func (u *unit) setEnabled(run bool) error {
	watched := u.isWatched()
	u.mu.Lock()
	if u.broken != nil {
		defer u.mu.Unlock()
		return fmt.Errorf("product %s: %w", u.name, u.broken)
	}
	r := u.record
	r.Enabled = run
	if err := writeRecord(u.dir, r); err != nil {
		u.mu.Unlock()
		return err
	}
	u.record, u.wanted = r, run
	failed := u.status.State == Failed
	u.mu.Unlock()
	if failed && watched { // the watcher is asleep until the nudge, so that the state is this caller's
		next := Stopped
		if run {
			next = Starting
		}
		u.set(next, "")
	}
	u.nudge()
	return nil
}

// save writes a changed record; u.mu is held.
func (u *unit) save(r Record) error {
	if err := writeRecord(u.dir, r); err != nil {
		return err
	}
	u.record = r
	u.restart++
	u.log.limit(int64(r.Grants.Limits.Log))
	return nil
}

// update changes the record by f, or leaves it as it was.
func (u *unit) update(f func(*manifest.Manifest, *Record) error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.broken != nil {
		return fmt.Errorf("product %s: %w", u.name, u.broken)
	}
	r := u.record
	r.Settings = maps.Clone(r.Settings)
	if err := f(u.manifest, &r); err != nil {
		return fmt.Errorf("product %s: %w", u.name, err)
	}
	return u.save(r)
}

// requestRestart makes the present run, if there is one, the last with what it was started with.
func (u *unit) requestRestart() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.restart++
}

// again makes the watcher see a request to restart, and waits until the product runs anew or has failed, if it shall run.
func (u *unit) again(ctx context.Context) error {
	u.nudge()
	if !u.isWanted() {
		return nil
	}
	err := u.await(ctx, func(u *unit) bool { return u.settled(true) && (u.current == u.restart || u.status.State == Failed) })
	if err != nil {
		return fmt.Errorf("wait for product %s: %w", u.name, err)
	}
	return nil
}

func (u *unit) isWatched() bool {
	u.m.mu.Lock()
	defer u.m.mu.Unlock()
	return u.watched && u.m.ctx != nil
}

// settled reports whether the product is where run wants it, or cannot get there soon. u.mu is held.
func (u *unit) settled(run bool) bool {
	switch u.status.State {
	case Running:
		return run
	case Stopped:
		return !run
	case Waiting:
		return run && u.wanted
	case Failed:
		return true // nothing of it runs, and nothing will by itself
	}
	return false
}

var errNotRunning = errors.New("the agent does not run products now")

// await waits until reached, which is called with u.mu held.
func (u *unit) await(ctx context.Context, reached func(*unit) bool) error {
	if !u.isWatched() {
		return nil // the record is what counts until the products are started
	}
	for {
		u.mu.Lock()
		ok, changed := reached(u), u.changed
		u.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-time.After(100 * time.Millisecond):
			if !u.isWatched() {
				return errNotRunning
			}
		}
	}
}

// ensureState makes the product's state directory, which outlives its releases.
func (u *unit) ensureState(r *Record) (string, error) {
	dir, uid := filepath.Join(u.dir, r.stateName()), r.UID
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("make state directory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err == nil && st.Uid == uid && st.Gid == uid {
		return dir, nil // a disk that is read-only takes no owner, not even the same one
	}
	if err := os.Lchown(dir, int(uid), int(uid)); err != nil {
		return "", fmt.Errorf("make state directory: %w", err)
	}
	return dir, nil
}
