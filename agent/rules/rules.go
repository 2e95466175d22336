package rules

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf/ringbuf"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/internal/boottime"
	"bailey/internal/bpffs"
	"bailey/internal/bpflsm"
)

// Component is the rules' name in the health registry.
const Component = "rules"

// Config is what New needs. Functions are called by the goroutine that caused them, one at a time, and must not call Rules.
type Config struct {
	Pins       string        // a directory of its own in a bpffs, which need not exist; its parent must
	Scratch    string        // a directory in which hooks are tried; default: the system's for temporary files
	PerProduct int           // how many rules a product can have; default 256, at most 1024
	MaxLease   time.Duration // default 24 h

	// Critical says whether this machine cannot do without a file, CriticalBelow whether one lies below a directory, and which.
	Critical      func(*event.File) bool
	CriticalBelow func(dir string) (example string, found bool)
	// Untouchable are control groups, as in /proc/PID/cgroup, no process of which, or below, any rule may hold for.
	Untouchable []string

	Emit    func(Hit)               // called by Run; default: hits are counted only
	Changed func(Change)            // default: nobody is told
	Loaded  func(pins string) error // called when the programs were loaded and pinned, before any rule holds

	Log    *slog.Logger     // default: discard
	Health *health.Registry // default: none
}

func (c *Config) complete() error {
	if !filepath.IsAbs(c.Pins) {
		return fmt.Errorf("the directory for pins %q is not absolute", c.Pins)
	}
	if c.Critical == nil || c.CriticalBelow == nil {
		return errors.New("no critical set")
	}
	if c.PerProduct == 0 {
		c.PerProduct = 256
	}
	if c.MaxLease == 0 {
		c.MaxLease = 24 * time.Hour
	}
	if c.Emit == nil {
		c.Emit = func(Hit) {}
	}
	if c.Changed == nil {
		c.Changed = func(Change) {}
	}
	if c.Loaded == nil {
		c.Loaded = func(string) error { return nil }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Health == nil {
		c.Health = health.NewRegistry()
	}
	return nil
}

// Grant is what the operator lets one product do with rules.
type Grant struct {
	Actions  []Action
	Critical bool // its rules may hold for files of the critical set
	Enforce  bool // clear: hits of its rules are told, and nothing is refused
}

// entry is one rule that holds.
type entry struct {
	slot    uint32
	rule    Rule
	target  target
	number  uint32 // the product's
	serial  uint32
	since   uint64
	until   uint64
	earlier uint64 // hits before it had this slot
}

// Status is one rule as it is now.
type Status struct {
	Rule     Rule
	Since    uint64 // nanoseconds since boot
	Until    uint64
	Hits     uint64
	Enforced bool // clear: its product is braked, or in shadow
}

// Change is something that happened to a rule.
type Change struct {
	Rule   Rule
	What   string // one of the words below
	Until  uint64 // nanoseconds since boot
	Hits   uint64
	Reason string
}

// The words of Change.What.
const (
	Installed = "installed"
	Renewed   = "renewed"
	Refused   = "refused"
	Removed   = "removed"
	Expired   = "expired"
	Disabled  = "disabled" // it came to hold for what no rule may hold for
	Adopted   = "adopted"
)

const leaseEnded = "its lease ended"

// Rules are the rules of all products on this machine. Safe for concurrent use, but for Run, which is called once.
type Rules struct {
	cfg Config

	mu       sync.Mutex // guards all that follows, and learning
	print    *bpflsm.Blueprint
	kernel   *kernel       // nil until it is needed
	loaded   chan struct{} // closed when there is one
	entries  map[uint32]*entry
	past     map[uint32]Rule // by serial, of late
	pastList []uint32
	serial   uint32
	numbers  map[string]uint32 // products
	grants   map[string]Grant
	told     bool // grants are known
	braked   map[string]bool
	disabled map[string]string // products with a rule that was disabled, and why
	wake     chan struct{}
	looked   uint64           // when it was last looked whether rules are harmless
	open     bool             // between TakeOver and Leave
	silent   map[Action]error // which hooks this kernel does not call
	failed   error            // why this kernel cannot
	failedAt time.Time
}

// New makes rules that touch nothing before TakeOver: another agent may still serve.
func New(cfg Config) (*Rules, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("make the rules: %w", err)
	}
	return &Rules{
		cfg: cfg, loaded: make(chan struct{}), entries: map[uint32]*entry{}, past: map[uint32]Rule{}, numbers: map[string]uint32{},
		grants: map[string]Grant{}, braked: map[string]bool{}, disabled: map[string]string{}, silent: map[Action]error{}, wake: make(chan struct{}, 1),
	}, nil
}

// TakeOver takes over the rules that an earlier agent left in force, once that one has left. Nothing is loaded into the kernel where there
// are none and no product may have any. That it fails is in the health registry, and rules cannot be installed then.
func (r *Rules) TakeOver() {
	r.mu.Lock()
	r.open = true
	if err := r.adopt(); err != nil {
		r.fail(fmt.Errorf("rules that an earlier agent left could not be taken over: %w", err))
	}
	var changes []Change
	if r.told {
		changes = r.setGrants(r.grants)
	}
	r.mu.Unlock()
	r.tell(changes)
}

// again is how long it is taken for granted that this kernel cannot enforce rules, before it is tried again: trying takes a second.
const again = time.Minute

func (r *Rules) fail(err error) {
	r.failed, r.failedAt = err, time.Now()
	r.tellHealth()
}

// need loads the programs if they are not. r.mu is held.
func (r *Rules) need() error {
	switch {
	case r.kernel != nil:
		return nil
	case !r.open:
		return fmt.Errorf("%w: another agent has them", ErrUnsupported)
	case r.failed != nil && time.Since(r.failedAt) < again:
		return r.failed
	}
	if err := r.load(); err != nil {
		r.fail(err)
		return err
	}
	r.failed = nil
	r.tellHealth()
	return nil
}

func (r *Rules) load() (err error) {
	if err := bpffs.MakeDir(r.cfg.Pins); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if r.print == nil {
		if r.print, err = newBlueprint(); err != nil {
			return fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
	}
	k, err := load(r.print)
	if err != nil {
		return err
	}
	k.scratch, k.log = r.cfg.Scratch, r.cfg.Log
	if err := k.pin(r.cfg.Pins, r.print); err != nil {
		return errors.Join(fmt.Errorf("%w: %w", ErrUnsupported, err), k.Close())
	}
	// Whether the kernel calls programs at all is found out before anybody relies on them.
	if err := k.tryLearning(); err != nil {
		return errors.Join(err, bpffs.Remove(r.cfg.Pins), k.Close())
	}
	if err := r.cfg.Loaded(r.cfg.Pins); err != nil {
		return errors.Join(err, bpffs.Remove(r.cfg.Pins), k.Close())
	}
	r.kernel = k
	close(r.loaded)
	return nil
}

// tellHealth says what is wrong with rules on this machine. r.mu is held.
func (r *Rules) tellHealth() {
	e := health.Entry{Component: Component, Status: health.OK, Summary: "products' standing denies are enforced by the kernel"}
	names := slices.Sorted(maps.Keys(r.disabled))
	switch {
	case r.failed != nil:
		e.Status, e.Summary, e.Remedy = health.Degraded, "products can install no rules: "+r.failed.Error(), bpflsm.Remedy(r.failed)
	case len(r.silent) > 0:
		a := slices.Min(slices.Collect(maps.Keys(r.silent)))
		e.Status, e.Summary = health.Degraded, fmt.Sprintf("products cannot install rules for %s: %v", a, r.silent[a])
		e.Remedy = bpflsm.Remedy(r.silent[a])
	case len(names) > 0:
		e.Status, e.Summary = health.Degraded, "a rule was ended because it came to hold for what this machine cannot do without: "+names[0]+": "+r.disabled[names[0]]
		e.Remedy = "tell the product's vendor, or grant it deny_critical"
		if len(names) > 1 {
			e.Summary += fmt.Sprintf("; and of %d more products", len(names)-1)
		}
	}
	r.cfg.Health.Set(e)
}

// SetGrants says which products there are and what they may. Rules that are not covered end at once. A product that may install rules
// has this kernel tried, so that the operator hears of it before the product does.
func (r *Rules) SetGrants(grants map[string]Grant) {
	r.mu.Lock()
	changes := r.setGrants(grants)
	r.mu.Unlock()
	r.tell(changes)
}

// setGrants returns what to tell of it. r.mu is held.
func (r *Rules) setGrants(grants map[string]Grant) []Change {
	r.grants, r.told = grants, true
	if !r.open {
		return nil
	}
	wanted := false
	for _, g := range grants {
		wanted = wanted || len(g.Actions) > 0
	}
	if wanted {
		_ = r.need() // it is a health entry
	}
	changes := r.dropLocked(func(e *entry) (string, string) {
		if g, ok := grants[e.rule.Product]; !ok || !slices.Contains(g.Actions, e.rule.Action) {
			return Removed, "the operator does not grant rule:" + e.rule.Action.String()
		}
		return "", ""
	})
	for name := range r.disabled {
		if g, ok := grants[name]; !ok || len(g.Actions) == 0 || g.Critical {
			delete(r.disabled, name)
			r.tellHealth()
		}
	}
	r.writeModes()
	return changes
}

// SetGrant says what one more product may, before it can ask for anything.
func (r *Rules) SetGrant(product string, g Grant) {
	r.mu.Lock()
	all := maps.Clone(r.grants)
	all[product] = g
	changes := r.setGrants(all)
	r.mu.Unlock()
	r.tell(changes)
}

// SetBraked makes a product's rules stop to refuse anything, or refuse again. Its hits are told all the same.
func (r *Rules) SetBraked(product string, braked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.braked[product] = braked
	r.writeModes()
}

// The modes in state.h.
const (
	modeEnforce = 1
	modeObserve = 2
)

func (r *Rules) enforced(product string) bool { return r.grants[product].Enforce && !r.braked[product] }

// writeModes tells the kernel what products' rules do. Before anything is known of the products, what an earlier agent told it holds.
// r.mu is held.
func (r *Rules) writeModes() {
	if r.kernel == nil || !r.told {
		return
	}
	for name, number := range r.numbers {
		mode := uint32(modeObserve)
		if r.enforced(name) {
			mode = modeEnforce
		}
		if err := r.kernel.Maps[mapProducts].Put(number, mode); err != nil {
			r.cfg.Log.Error("the kernel was not told what a product's rules do", "product", name, "err", err)
		}
	}
}

// number returns the product's number in the kernel, which it keeps until the machine boots. r.mu is held.
func (r *Rules) number(product string) (uint32, error) {
	if n, ok := r.numbers[product]; ok {
		return n, nil
	}
	for n := uint32(1); n < maxProducts; n++ {
		taken := false
		for _, other := range r.numbers {
			taken = taken || other == n
		}
		if !taken {
			r.numbers[product] = n
			r.writeModes()
			return n, nil
		}
	}
	return 0, fmt.Errorf("%w: %d products have had some since the machine booted", ErrFull, len(r.numbers))
}

// List returns all rules, in the order of products and ids.
func (r *Rules) List() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := boottime.Now()
	var out []Status
	for _, e := range r.entries {
		if e.until <= now {
			continue // it does not hold any more, and is about to be removed
		}
		out = append(out, Status{Rule: e.rule, Since: e.since, Until: e.until, Hits: r.hits(e), Enforced: r.enforced(e.rule.Product)})
	}
	slices.SortFunc(out, func(a, b Status) int {
		if c := strings.Compare(a.Rule.Product, b.Rule.Product); c != 0 {
			return c
		}
		return strings.Compare(a.Rule.ID, b.Rule.ID)
	})
	return out
}

func (r *Rules) hits(e *entry) uint64 {
	var n uint64
	if r.kernel == nil {
		return e.earlier
	}
	if err := r.kernel.Maps[mapHits].Lookup(e.slot, &n); err != nil {
		return e.earlier
	}
	return e.earlier + n
}

func (r *Rules) tell(changes []Change) {
	for _, c := range changes {
		r.cfg.Changed(c)
	}
}

// Run tells hits and removes rules whose lease has ended, until ctx ends. The kernel does not need it: a lease ends there by itself.
func (r *Rules) Run(ctx context.Context) error {
	var reading sync.WaitGroup
	defer reading.Wait()
	failed := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reading.Go(func() {
		select {
		case <-r.loaded:
			failed <- r.read(ctx)
		case <-ctx.Done():
		}
	})
	for {
		pause := time.NewTimer(r.sweep()) // nothing, once they were left
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case err := <-failed:
			if err != nil {
				pause.Stop()
				return err
			}
		case <-r.wake:
		case <-pause.C:
		}
		pause.Stop()
	}
}

// lookEvery is how often it is looked whether a rule came to hold for a critical file.
const lookEvery = time.Minute

// sweep removes rules whose lease has ended and those that Recheck finds, and returns when to look again.
func (r *Rules) sweep() time.Duration {
	r.mu.Lock()
	now := boottime.Now()
	changes := r.dropLocked(func(e *entry) (string, string) {
		if e.until <= now {
			return Expired, leaseEnded
		}
		return "", ""
	})
	next := lookEvery
	for _, e := range r.entries {
		next = min(next, time.Duration(e.until-now)+time.Millisecond)
	}
	look := now-r.looked >= uint64(lookEvery)
	if look {
		r.looked = now
	}
	r.mu.Unlock()
	r.tell(changes)
	if look {
		r.Recheck()
	}
	return next
}

func (r *Rules) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *Rules) read(ctx context.Context) error {
	r.mu.Lock()
	if r.kernel == nil { // left already
		r.mu.Unlock()
		return nil
	}
	ring, err := ringbuf.NewReader(r.kernel.Maps[mapRefusals])
	r.mu.Unlock()
	if err != nil {
		return fmt.Errorf("open the ring of refusals: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = ring.Close() })
	defer stop()
	defer ring.Close() //nolint:errcheck // nothing was written
	var record ringbuf.Record
	for {
		if err := ring.ReadInto(&record); errors.Is(err, ringbuf.ErrClosed) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read the refusals: %w", err)
		}
		h, serial, err := decodeHit(record.RawSample)
		if err != nil {
			return err
		}
		if r.describe(&h, serial) {
			r.cfg.Emit(h)
		}
	}
}

// describe fills in the hit's rule, if it is known.
func (r *Rules) describe(h *Hit, serial uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.entries {
		if e.serial == serial {
			h.Rule, h.Target = e.rule, e.target.named
			return true
		}
	}
	rule, ok := r.past[serial]
	h.Rule = rule
	return ok
}

// Leave lets go of the rules and leaves them in force, for the next agent.
func (r *Rules) Leave() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = false
	if r.kernel == nil {
		return nil
	}
	err := r.kernel.Close()
	r.kernel, r.entries = nil, map[uint32]*entry{}
	return err
}

// Close ends all rules: nothing of them is left in the kernel.
func (r *Rules) Close() error { return errors.Join(bpffs.Remove(r.cfg.Pins), r.Leave()) }
