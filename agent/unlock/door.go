package unlock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"bailey/agent/health"
	"bailey/agent/unlock/operatorkey"
	"bailey/agent/unlock/token"
	"bailey/internal/boottime"
)

// Guard is what a token opens. Its methods may be called at any time, also twice.
type Guard interface {
	// Unlock allows the scopes until a time in nanoseconds since boot (CLOCK_BOOTTIME), whatever was allowed before.
	Unlock(scope []string, until uint64) error
	// Relock allows nothing any more.
	Relock() error
	// Locked reports whether nothing is allowed.
	Locked() bool
}

// Config is what a Door needs. State, Health, Log, Host, Keys, Note and Commit have no default.
type Config struct {
	State  string // the agent's state directory
	BootID string // names the machine's uptime
	Guard  Guard  // nil: none is active, for the reason Absent
	Absent string // one sentence without a full stop
	// Host returns what tokens name this machine by. It is asked once in a boot: who can mount something over the file with
	// the machine's id does not change its name before a reboot.
	Host func() (token.Host, error)
	// Keys returns the keys that count now. With an error it may return some too: that one is unreadable leaves the others.
	Keys func() (operatorkey.Trusted, error)
	// Note writes a line into the journal soon; Commit returns when it is on the disk.
	Note   func(fields map[string]any)
	Commit func(fields map[string]any) error
	Health *health.Registry
	Log    *slog.Logger

	Now          func() time.Time // default time.Now
	Boot         func() uint64    // nanoseconds since boot; default boottime.Now
	Synchronised func() bool      // whether Now can be trusted; default Synchronised
}

// The Door's entries in the health registry.
const (
	LockComponent   = "guard.lock"      // whether the guard is open, for whom
	KeysComponent   = "operator.keys"   // whether there is a key that could open it
	TokensComponent = "operator.tokens" // whether used tokens are remembered
)

// Door opens the guard for tokens. Safe for concurrent use.
type Door struct {
	cfg   Config
	path  string
	woken chan struct{} // something was opened or closed

	mu     sync.Mutex
	loaded bool
	broken error // why the record cannot be used
	rec    record
	floor  floor
	saved  time.Time // the floor that is on the disk
}

// New makes a door. It reads nothing before it is used: an agent that stands by must see what the one before it wrote last.
func New(cfg Config) (*Door, error) {
	if cfg.State == "" || cfg.Health == nil || cfg.Log == nil || cfg.Host == nil || cfg.Keys == nil || cfg.Note == nil || cfg.Commit == nil {
		return nil, errors.New("make the guard's door: State, Host, Keys, Note, Commit, Health and Log are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Boot == nil {
		cfg.Boot = boottime.Now
	}
	if cfg.Synchronised == nil {
		cfg.Synchronised = Synchronised
	}
	return &Door{cfg: cfg, path: filepath.Join(cfg.State, FileName), woken: make(chan struct{}, 1)}, nil
}

// Attach says which guard the door opens from now on; nil: none is active, for the reason absent. It is called before Run.
func (d *Door) Attach(g Guard, absent string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cfg.Guard, d.cfg.Absent = g, absent
}

// load reads the record once. d.mu is held.
func (d *Door) load() {
	if d.loaded {
		return
	}
	d.loaded = true
	d.rec, d.broken = read(d.path)
	if d.broken != nil {
		d.remembered(d.broken)
		return
	}
	boot := d.cfg.Boot()
	if d.rec.Floor > 0 {
		d.floor = floor{at: time.Unix(d.rec.Floor, 0), boot: boot}
		d.saved = d.floor.at
	}
	if d.rec.BootID == d.cfg.BootID {
		d.floor.boot = min(d.rec.FloorBoot, boot)
		return
	}
	d.rec.Open, d.rec.Host = nil, "" // a reboot closes everything
}

// host returns this machine's name. d.mu is held.
func (d *Door) host() (token.Host, error) {
	if d.cfg.Guard == nil {
		return d.cfg.Host()
	}
	if d.load(); d.rec.Host != "" {
		return token.ParseHost(d.rec.Host)
	}
	h, err := d.cfg.Host()
	if err == nil && d.broken == nil {
		d.rec.Host = h.String()
	}
	return h, err
}

// save writes the record. d.mu is held.
func (d *Door) save() error {
	boot := d.cfg.Boot()
	d.rec.Version, d.rec.BootID, d.rec.FloorBoot = recordVersion, d.cfg.BootID, boot
	at := d.floor.now(boot)
	d.rec.Floor = 0
	if !at.IsZero() {
		d.rec.Floor = at.Unix()
	}
	err := d.rec.write(d.path)
	if err == nil {
		d.saved = at
	}
	d.remembered(err)
	return err
}

// remembered tells whether used tokens are.
func (d *Door) remembered(err error) {
	e := health.Entry{Component: TokensComponent, Status: health.OK, Summary: "used tokens are remembered"}
	if err != nil {
		e.Status = health.Failed
		e.Summary = "no token is accepted, because which were used before cannot be known: " + err.Error()
		e.Remedy = fmt.Sprintf("make room in %s and make it writable; if %s is damaged, boot with bailey.guard=off on the kernel command line, move it away, and revoke the keys of tokens that have not expired", d.cfg.State, FileName)
	}
	if d.cfg.Guard != nil || err == nil {
		d.cfg.Health.Set(e)
	}
}

// State is what the door is like.
type State struct {
	Active  bool   // a guard is
	Absent  string // why not
	Locked  bool
	Until   uint64 // nanoseconds since boot, when not locked
	Expires time.Time
	Scopes  []string
	Key     string
	Name    string
	Nonce   string
	Host    string // what tokens name this machine by; empty: it has no machine id
	Keys    []string
}

// State returns it.
func (d *Door) State() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state()
}

func (d *Door) state() State {
	s := State{Absent: d.cfg.Absent}
	if h, err := d.host(); err == nil {
		s.Host = h.String()
	}
	keys, _ := d.cfg.Keys() // what is wrong is a health entry
	for _, k := range keys {
		s.Keys = append(s.Keys, shown(k.ID().String(), k.Name))
	}
	if d.cfg.Guard == nil {
		return s
	}
	s.Active, s.Absent, s.Locked = true, "", d.cfg.Guard.Locked()
	if d.load(); d.rec.Open != nil && !s.Locked {
		o := d.rec.Open
		s.Until, s.Expires, s.Scopes, s.Key, s.Name, s.Nonce = o.Until, time.Unix(o.Expires, 0), o.Scopes, o.Key, o.Name, o.Nonce
	}
	return s
}

// shown is how a key is named to people.
func shown(id, name string) string {
	if name == "" {
		return "key " + id
	}
	return name + " (key " + id + ")"
}

// Allows reports whether the guard lets a scope be done now: always where there is no guard.
func (d *Door) Allows(scope string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cfg.Guard == nil {
		return true
	}
	d.load()
	o := d.rec.Open
	return o != nil && o.Until > d.cfg.Boot() && slices.Contains(o.Scopes, scope) && !d.cfg.Guard.Locked()
}

// errNoGuard refuses what makes no sense without a guard.
func (d *Door) errNoGuard() error {
	return token.Refuse("guard", "there is nothing to unlock: what needs root's rights, root can do. `bailey doctor` says what this machine lacks",
		"no guard is active on this machine (%s)", d.cfg.Absent)
}

// Lock closes what is open.
func (d *Door) Lock() (State, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cfg.Guard == nil {
		return d.state(), d.errNoGuard()
	}
	d.load()
	if err := d.cfg.Guard.Relock(); err != nil {
		return d.state(), fmt.Errorf("lock the guard: %w", err)
	}
	if o := d.rec.Open; o != nil {
		d.rec.Open = nil
		d.cfg.Note(o.fields("locked", "an operator locked it before its time"))
		if d.broken == nil {
			_ = d.save() // it says so in the health registry, and a restart would find the guard as it is
		}
	}
	d.tell()
	return d.state(), nil
}

func (o *opened) fields(result, why string) map[string]any {
	f := map[string]any{"result": result, "scopes": o.Scopes, "key": o.Key, "token": o.Nonce}
	if o.Name != "" {
		f["name"] = o.Name
	}
	if why != "" {
		f["why"] = why
	}
	return f
}

// tell shows the lock's state in the health registry. d.mu is held.
func (d *Door) tell() {
	select {
	case d.woken <- struct{}{}:
	default:
	}
	e := health.Entry{Component: LockComponent, Status: health.OK, Summary: "the guard is locked"}
	if o := d.rec.Open; o != nil {
		e.Status = health.Degraded
		e.Summary = fmt.Sprintf("the guard is unlocked for %s until %s by %s", strings.Join(o.Scopes, ", "), time.Unix(o.Expires, 0).UTC().Format(time.RFC3339), shown(o.Key, o.Name))
		e.Remedy = "when it is not needed any more: bailey lock"
	}
	d.cfg.Health.Set(e)
}

const (
	watchEvery = time.Second      // how often an open guard's time is looked at
	floorEvery = 10 * time.Minute // how often the floor is written
)

// Run closes the guard when its time is over and keeps the floor, until ctx ends. What is open stays open then: for an agent
// that comes after, and for a guard that ends it by itself.
func (d *Door) Run(ctx context.Context) error {
	d.begin()
	for {
		wait := floorEvery
		if d.turn() {
			wait = watchEvery
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-d.woken:
			t.Stop()
		case <-t.C:
		}
	}
}

// begin puts in force what an agent before this one opened in the same boot.
func (d *Door) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cfg.Guard == nil {
		return
	}
	d.load()
	if d.rec.Host == "" {
		if _, err := d.host(); err == nil {
			d.keep()
		}
	}
	if o := d.rec.Open; o != nil && o.Until > d.cfg.Boot() {
		if err := d.cfg.Guard.Unlock(o.Scopes, o.Until); err != nil {
			d.cfg.Log.Error("what was unlocked before is not unlocked any more", "err", err)
			d.rec.Open = nil
		}
	}
	d.tell()
	d.tellKeys()
}

// tellKeys says whether anybody could open the guard.
func (d *Door) tellKeys() {
	keys, err := d.cfg.Keys()
	e := health.Entry{Component: KeysComponent, Status: health.OK, Summary: fmt.Sprintf("tokens of %d operators' keys count", len(keys))}
	switch {
	case err != nil:
		e.Status, e.Summary, e.Remedy = health.Degraded, "an operator's key does not count: "+err.Error(), "correct or remove it; the other keys count"
	case len(keys) == 0:
		e.Status, e.Summary = health.Degraded, "no operator's key is known, so no token can unlock the guard"
		e.Remedy = "make one with `bailey operator keygen`, and put its line into [operator] keys or its .pub file into [operator] key_dir; until then only booting with bailey.guard=off gets past the guard"
	}
	d.cfg.Health.Set(e)
}

// turn ends what is over and keeps the floor. It reports whether something is open.
func (d *Door) turn() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cfg.Guard == nil {
		return false
	}
	d.load()
	boot := d.cfg.Boot()
	if d.cfg.Synchronised() {
		d.floor = d.floor.raised(d.cfg.Now(), boot)
	}
	if o := d.rec.Open; o != nil && boot >= o.Until {
		if err := d.cfg.Guard.Relock(); err != nil {
			d.cfg.Log.Error("the guard could not be locked; it ends what was allowed by itself", "err", err)
		}
		d.rec.Open = nil
		d.cfg.Note(o.fields("expired", ""))
		d.tell()
		d.keep()
		return false
	}
	if d.floor.now(boot).Sub(d.saved) >= floorEvery {
		d.keep()
	}
	d.tellKeys()
	return d.rec.Open != nil
}

// keep saves what can be saved.
func (d *Door) keep() {
	if d.broken != nil {
		return
	}
	if err := d.save(); err != nil {
		d.cfg.Log.Warn("the floor of time is not kept", "err", err)
	}
}
