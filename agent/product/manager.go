package product

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/product/cgroup"
	"bailey/agent/product/contain"
	"bailey/agent/product/grant"
	"bailey/agent/product/manifest"
)

// Config is what a Manager needs. State, Run, Host, Health, Log and Emit have no default.
type Config struct {
	State  string // directory that outlives the agent; products are below products/
	Run    string // directory of this boot
	Host   Host
	Health *health.Registry
	Log    *slog.Logger
	Emit   func(*event.Event)

	UIDBase     uint32        // the first of the users that products run as; default 1,900,000,000
	Helper      []string      // argv of the contain command; default: this program with "contain"
	Backoff     Backoff       // how a product that ended is started again
	StopTimeout time.Duration // from the request to stop until everything is killed; default 3 s
	Poll        time.Duration // how often state size and resources are looked at; default 5 s
	// OnCrashLoop is told of a product that crashed too often: with the release that did, and the one that it went back to,
	// empty if there was none and the product is off. It may call the Manager.
	OnCrashLoop func(name, bad, back string)
	// Keeper holds running products over the death of the agent: nil ends them with it.
	Keeper Keeper
	// Promote moves authority from one session to another, which runs beside it, in one step. from is nil where the product does not run.
	Promote func(to, from Session) error
	// ResumePatience is how long a product that was taken over may take to go on with this agent; default 1 s.
	ResumePatience time.Duration
}

// DefaultUIDBase is above what systemd gives to containers and dynamic users, and below what Linux cannot use.
const DefaultUIDBase = 1_900_000_000

// maxProducts bounds how many products, removed ones with state included, there can be.
const maxProducts = 1024

// Host speaks with products.
type Host interface {
	// Connect takes over the agent's end of the product's socket, also when it fails. The product runs already.
	Connect(inst Instance, sock int) (Session, error)
	// Resume is Connect for a product that spoke with another agent through this very socket before.
	Resume(inst Instance, sock int) (Session, error)
}

// Session is the conversation with one running product.
type Session interface {
	Stop(deadline time.Time) // asks the product to finish; does not wait
	Done() <-chan struct{}   // closed when the conversation is over
	Err() error              // after Done: why, nil when the product hung up
	Close()                  // ends the conversation; idempotent, returns when nothing of it runs any more
	// Resumable is closed when the product has said that it can go on with another agent, and, after Host.Resume, that it
	// goes on with this one.
	Resumable() <-chan struct{}
	// Leave is Close without telling the product, for an agent that takes it over: what is meant for it is sent first.
	Leave()
}

// Instance is one run of a product.
type Instance struct {
	Name      string
	Beside    bool   // it runs beside the product of its name, and has no authority
	Release   string // VERSION-HASH
	Version   string
	Transport string // seqpacket or stream
	PID       int    // as the agent sees it; 0 if it was gone already
	Init      int    // pid 1 of its namespace, the ancestor of all its processes
	UID       uint32
	Grants    grant.Grant
	Settings  map[string]string // the manifest's with the operator's over them

	// EventsMade and QuestionsMade hold, for the next agent, how many were made for the product. Nil when it cannot outlive
	// this one.
	EventsMade, QuestionsMade *atomic.Uint64
}

// ErrUnknown is the class of a product name that is not installed.
var ErrUnknown = errors.New("no such product")

// Manager is all products of one agent. Safe for concurrent use.
type Manager struct {
	cfg     Config
	dir     string // STATE/products
	spawner *contain.Spawner
	leaving atomic.Bool  // the end of Run leaves products to another agent
	left    atomic.Int32 // how many it left

	resuming sync.WaitGroup // products that an earlier agent left and that did not go on with this one yet
	resumed  chan struct{}  // closed when there are none
	started  chan struct{}  // closed when Run can start something

	install sync.Mutex // one installation or removal at a time
	tidy    sync.Mutex // what a product has on the disk is what its record says, or nobody looks
	trying  sync.Mutex // held as long as there is a Trial
	trial   *Trial     // guarded by mu

	mu       sync.Mutex // taken before a unit's, never within it
	held     string     // why no product is started; empty: they are
	units    map[string]*unit
	besides  map[string]*unit // by product: what runs beside it
	servants map[*Serving]bool
	ctx      context.Context // of Run; nil when not running
	tree     *cgroup.Tree
	watchers sync.WaitGroup
}

// New reads what is installed. It starts nothing: see Run. A product whose record cannot be read is there, failed, and
// untouched.
func New(cfg Config) (*Manager, error) {
	if cfg.UIDBase == 0 {
		cfg.UIDBase = DefaultUIDBase
	}
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = 3 * time.Second
	}
	if cfg.Poll == 0 {
		cfg.Poll = 5 * time.Second
	}
	if cfg.ResumePatience == 0 {
		cfg.ResumePatience = time.Second
	}
	cfg.Backoff = cfg.Backoff.withDefaults()
	m := &Manager{cfg: cfg, dir: filepath.Join(cfg.State, "products"), units: make(map[string]*unit), besides: make(map[string]*unit), servants: make(map[*Serving]bool), spawner: contain.NewSpawner(),
		resumed: make(chan struct{}), started: make(chan struct{})}
	for _, d := range []string{m.dir, m.rootDir()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open product state: %w", err)
		}
	}
	return m, m.load()
}

// rootDir is the empty directory that each product's root is built on, in a mount namespace of its own.
func (m *Manager) rootDir() string { return filepath.Join(m.cfg.Run, "root") }

func (m *Manager) load() error {
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return fmt.Errorf("open product state: %w", err)
	}
	for _, e := range entries {
		if isStaging(e.Name()) { // an installation, or a removal, that a crash or power cut ended: it is in nobody's way
			if err := os.RemoveAll(filepath.Join(m.dir, e.Name())); err != nil {
				m.cfg.Log.Warn("what a crash or a power cut left unfinished is not removed", "err", err)
			}
		}
	}
	m.add(entries)
	for _, u := range m.units {
		u.pruneAside() // it has ended with its agent
	}
	return nil
}

// Leave makes the end of Run's ctx leave the products that can go on with another agent running and kept, for an agent that
// takes them over. The others are stopped.
func (m *Manager) Leave() { m.leaving.Store(m.cfg.Keeper != nil) }

// Resumed is closed when every product that Run took over from an earlier agent goes on with this one, or has ended.
func (m *Manager) Resumed() <-chan struct{} { return m.resumed }

// Started is closed when Run has come so far that products, trials and servants can be started.
func (m *Manager) Started() <-chan struct{} { return m.started }

// Run takes over the products that an earlier agent left, starts the other enabled ones, watches over all, and stops them
// when ctx ends. When it returns nothing of them is left, but for what Leave says.
func (m *Manager) Run(ctx context.Context) error {
	tree, missing, err := cgroup.Open(m.treeName())
	if err != nil {
		m.cfg.Health.Set(health.Entry{Component: "containment.limits", Status: health.Failed, Summary: "products cannot start: " + err.Error(), Remedy: "mount control groups (cgroup2 on /sys/fs/cgroup)"})
		return fmt.Errorf("start products: %w", err)
	}
	m.reportLimits(tree, missing)
	if err := tree.Sweep(m.inherit(tree.Has)...); err != nil {
		return fmt.Errorf("clean up after an earlier agent: %w", err)
	}
	spawn, stopSpawning := context.WithCancel(context.WithoutCancel(ctx))
	spawned := make(chan struct{})
	go func() { defer close(spawned); m.spawner.Run(spawn) }()

	m.mu.Lock()
	m.ctx, m.tree = ctx, tree
	for _, u := range m.units {
		m.watch(u)
	}
	m.mu.Unlock()
	close(m.started)
	m.watchers.Go(func() {
		m.resuming.Wait()
		close(m.resumed)
	})

	<-ctx.Done()
	m.mu.Lock()
	m.ctx = nil // from here on no watcher is added
	m.mu.Unlock()
	m.watchers.Wait()
	m.endTrial()
	m.endServants()
	stopSpawning()
	<-spawned
	if m.left.Load() > 0 {
		return nil // they are in it
	}
	return tree.Close()
}

// ControlGroup is the name of the control group that holds those of all products, directly below the root.
func (m *Manager) ControlGroup() string { return m.treeName() }

// treeName is the control group of this agent's products: the same for the next agent on the same state, which cleans up
// what this one may leave, and another for a second agent on the machine.
func (m *Manager) treeName() string { return ControlGroupOf(m.cfg.State) }

// ControlGroupOf is the control group of the products of an agent with that state directory, and its name for all that it has on the
// machine once.
func ControlGroupOf(state string) string {
	path, err := filepath.Abs(state)
	if err != nil {
		path = state
	}
	return fmt.Sprintf("bailey-%x", sha256.Sum256([]byte(path)))[:len("bailey-")+8]
}

func (m *Manager) reportLimits(tree *cgroup.Tree, missing []cgroup.Missing) {
	e := health.Entry{Component: "containment.limits", Status: health.OK, Summary: fmt.Sprintf("memory, processes and processor time are limited by control groups v%d", tree.Version())}
	if len(missing) > 0 {
		e.Status, e.Summary = health.Degraded, "not limited for products:"
		for _, c := range missing {
			e.Summary += fmt.Sprintf(" %s (no %s controller)", c.Bounds, c.Controller)
		}
		e.Remedy = "enable these control group controllers, on the kernel command line or for the unit that runs the agent"
	}
	m.cfg.Health.Set(e)
}

// watch starts u's watcher; m.mu is held.
func (m *Manager) watch(u *unit) {
	if m.ctx == nil || u.watched || m.held != "" {
		return
	}
	u.watched = true
	ctx := m.ctx
	m.watchers.Go(func() { u.watch(ctx) })
}

// unit finds an installed product.
func (m *Manager) unit(name string) (*unit, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u, ok := m.units[name]; ok && !u.removed() {
		return u, nil
	}
	return nil, fmt.Errorf("%w: %q", ErrUnknown, name)
}

// List returns every installed product, by name.
func (m *Manager) List() []View {
	m.mu.Lock()
	var units []*unit
	for _, u := range m.units {
		if !u.removed() {
			units = append(units, u)
		}
	}
	m.mu.Unlock()
	var out []View
	for _, u := range units {
		out = append(out, u.view())
	}
	slices.SortFunc(out, func(a, b View) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}

// Show returns one product.
func (m *Manager) Show(name string) (View, error) {
	u, err := m.unit(name)
	if err != nil {
		return View{}, err
	}
	return u.view(), nil
}

// Start enables a product and starts it, waiting until it runs or has failed. A crash loop is forgotten.
func (m *Manager) Start(ctx context.Context, name string) (View, error) {
	return m.command(ctx, name, true, func(u *unit) bool { return u.settled(true) })
}

// Stop stops a product and disables it, waiting until nothing of it runs.
func (m *Manager) Stop(ctx context.Context, name string) (View, error) {
	return m.command(ctx, name, false, func(u *unit) bool { return u.settled(false) })
}

func (m *Manager) command(ctx context.Context, name string, run bool, reached func(*unit) bool) (View, error) {
	u, err := m.unit(name)
	if err == nil && run {
		err = m.startable()
	}
	if err != nil {
		return View{}, err
	}
	if err := u.setEnabled(run); err != nil {
		return View{}, err
	}
	if !run {
		m.dismiss(name)
	}
	if err := u.await(ctx, reached); err != nil {
		return u.view(), fmt.Errorf("wait for product %s: %w", name, err)
	}
	return u.view(), nil
}

// Restart stops and starts a product, waiting until it runs again.
func (m *Manager) Restart(ctx context.Context, name string) (View, error) {
	u, err := m.unit(name)
	if err == nil {
		err = m.startable()
	}
	if err != nil {
		return View{}, err
	}
	if err := u.setEnabled(true); err != nil {
		return View{}, err
	}
	u.requestRestart()
	err = u.again(ctx)
	return u.view(), err
}

// Grant adds items to what a product may. A running product is restarted with its new grants.
func (m *Manager) Grant(ctx context.Context, name string, items ...string) (View, error) {
	return m.change(ctx, name, func(_ *manifest.Manifest, r *Record) error {
		for _, it := range items {
			if err := r.Grants.Add(it); err != nil {
				return err
			}
		}
		return nil
	})
}

// Revoke takes items from what a product may. A running product is restarted without them.
func (m *Manager) Revoke(ctx context.Context, name string, items ...string) (View, error) {
	return m.change(ctx, name, func(_ *manifest.Manifest, r *Record) error {
		for _, it := range items {
			if err := r.Grants.Remove(it); err != nil {
				return err
			}
		}
		return nil
	})
}

// Set overrides settings of the manifest, all or none of them; an empty value goes back to the manifest's. A running
// product is restarted with them.
func (m *Manager) Set(ctx context.Context, name string, settings map[string]string) (View, error) {
	return m.change(ctx, name, func(mf *manifest.Manifest, r *Record) error {
		for key, value := range settings {
			if err := checkSetting(mf, key, value); err != nil {
				return err
			}
			if r.Settings == nil {
				r.Settings = make(map[string]string)
			}
			r.Settings[key] = value
			if value == "" {
				delete(r.Settings, key)
			}
		}
		return nil
	})
}

func checkSetting(mf *manifest.Manifest, key, value string) error {
	if _, ok := mf.Settings[key]; !ok {
		var known []string
		for k := range mf.Settings {
			known = append(known, k)
		}
		slices.Sort(known)
		return fmt.Errorf("unknown setting %q; known: %v", key, known)
	}
	if err := manifest.CheckSetting(value); err != nil {
		return fmt.Errorf("setting %q: %w", key, err)
	}
	return nil
}

func (m *Manager) change(ctx context.Context, name string, f func(*manifest.Manifest, *Record) error) (View, error) {
	m.install.Lock()
	u, err := m.unit(name)
	if err == nil {
		err = errors.Join(u.update(f), m.settle(u)) // what is beside it has what it had
	}
	m.install.Unlock()
	if err != nil {
		return View{}, err
	}
	err = u.again(ctx)
	return u.view(), err
}

// Logs gives write a product's kept output and, if follow, what comes until ctx ends or write fails.
func (m *Manager) Logs(ctx context.Context, name string, follow bool, write func([]byte) error) error {
	u, err := m.unit(name)
	if err != nil {
		return err
	}
	return u.log.read(ctx, follow, write)
}
