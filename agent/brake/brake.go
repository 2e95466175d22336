package brake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
)

// Limits is how much one product may deny within a Window without being braked.
type Limits struct {
	Window       time.Duration // how far back denies count; default 1 min
	PackageFiles int           // different files that packages own; default 5
	Files        int           // different files in all; default 20
	Critical     int           // denies of files of the critical set, overridden all of them, after which it is braked; default 3
	ExecPercent  int           // of all execs of the machine, if some different files of root are among them; default 5
}

// MaxFiles bounds the limits of different files: so many are remembered of each product.
const MaxFiles = 10_000

// Config is what a Brake is made of. Limits have defaults; the functions but Execs and Repeated are required.
type Config struct {
	File   string // where braked products are remembered
	Limits Limits
	Now    func() uint64 // nanoseconds since boot (CLOCK_BOOTTIME)

	// Owned says whether a package owns the file; known is false where that cannot be said now. May take time.
	Owned func(*event.File) (owned, known bool)
	// Restrain makes a product's denies stop to count, or count again, and returns when they do.
	Restrain func(product string, on bool, reason string)
	// Emit gets a finding for each deny that was overridden; Wanted is asked first whether anybody wants findings.
	Emit   func(*event.Event)
	Wanted func() bool

	// Execs returns how many programs have been started on this machine so far; false where that is not known. Repeated
	// returns how many of the execs that a product denied it was not asked about. Default: share of execs is not judged.
	Execs    func() (uint64, bool)
	Repeated func(product string) uint64

	Log    *slog.Logger
	Health *health.Registry
}

// Brake is the brake of one agent. Safe for concurrent use.
type Brake struct {
	cfg  Config
	wake chan struct{}

	change sync.Mutex // one braking or release at a time, with its file

	mu       sync.Mutex
	products map[string]*watched
}

// New reads which products are braked, and restrains them. A file that cannot be read is named in the health registry,
// kept under another name, and counts as no product being braked.
func New(cfg Config) (*Brake, error) {
	if cfg.File == "" || cfg.Now == nil || cfg.Owned == nil || cfg.Restrain == nil || cfg.Emit == nil || cfg.Wanted == nil {
		return nil, errors.New("make the brake: a file and functions are required")
	}
	cfg.Limits = cfg.Limits.withDefaults()
	if err := cfg.Limits.check(); err != nil {
		return nil, fmt.Errorf("make the brake: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Health == nil {
		cfg.Health = health.NewRegistry()
	}
	b := &Brake{cfg: cfg, wake: make(chan struct{}, 1), products: make(map[string]*watched)}
	for _, r := range b.load() {
		w := newWatched(r.Product, cfg.Limits)
		w.release, w.braked = r.Release, &r
		b.products[r.Product] = w
		cfg.Restrain(r.Product, true, r.Reason)
		b.tellBraked(&r)
	}
	return b, nil
}

func (l Limits) withDefaults() Limits {
	if l.Window == 0 {
		l.Window = time.Minute
	}
	for v, d := range map[*int]int{&l.PackageFiles: 5, &l.Files: 20, &l.Critical: 3, &l.ExecPercent: 5} {
		if *v == 0 {
			*v = d
		}
	}
	return l
}

func (l Limits) check() error {
	switch {
	case l.Window < time.Second || l.Window > time.Hour:
		return fmt.Errorf("a window of %v is out of range: use 1s to 1h", l.Window)
	case l.PackageFiles < 1 || l.PackageFiles > MaxFiles, l.Files < 1 || l.Files > MaxFiles, l.Critical < 1 || l.Critical > MaxFiles:
		return fmt.Errorf("a limit of denies is out of range: use 1 to %d", MaxFiles)
	case l.ExecPercent < 1 || l.ExecPercent > 100:
		return fmt.Errorf("%d %% of execs is out of range: use 1 to 100", l.ExecPercent)
	}
	return nil
}

// Joined says that a product runs, as which release and with which limits of different files; 0 is the configured one.
func (b *Brake) Joined(product, release string, packageFiles, files int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.watchedLocked(product)
	w.release, w.limits = release, b.cfg.Limits
	if packageFiles > 0 {
		w.limits.PackageFiles = min(packageFiles, MaxFiles)
	}
	if files > 0 {
		w.limits.Files = min(files, MaxFiles)
	}
}

func (b *Brake) watchedLocked(product string) *watched {
	w := b.products[product]
	if w == nil {
		w = newWatched(product, b.cfg.Limits)
		b.products[product] = w
	}
	return w
}

// Admit notes a deny that would decide its question, and reports whether it may: not if it is one more than the product's
// limits. It looks at memory alone and waits for nobody.
func (b *Brake) Admit(d *event.Denial) bool {
	b.mu.Lock()
	w := b.watchedLocked(d.Product)
	may := w.braked == nil && w.admit(d)
	b.mu.Unlock()
	b.kick()
	return may
}

// Denied hears what became of a deny, after the kernel has its answer. It waits for nobody.
func (b *Brake) Denied(d event.Denial) {
	if d.Fate == event.DenyStood {
		return // Admit knows
	}
	b.mu.Lock()
	w := b.watchedLocked(d.Product)
	release := w.release
	switch {
	case d.Fate == event.DenyBraked:
		w.count++
	case w.braked == nil:
		w.overridden(&d)
	}
	b.mu.Unlock()
	if b.cfg.Wanted() {
		b.cfg.Emit(finding(&d, release))
	}
	if d.Fate == event.DenyCritical {
		b.kick()
	}
}

func (b *Brake) kick() {
	select {
	case b.wake <- struct{}{}:
	default: // it is going to look anyway
	}
}

// lookEvery is how often a product that has denied something is looked at without a cause.
const lookEvery = time.Second

// Run judges what was denied, until ctx ends. While no product denies anything it sleeps.
func (b *Brake) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var next <-chan time.Time
	for {
		onTime := false
		select {
		case <-ctx.Done():
			return nil
		case <-b.wake:
		case <-next:
			onTime = true
		}
		b.sample(onTime)
		b.classify()
		next = nil
		if b.judge() {
			next = tick.C
		}
	}
}

// finding says what a product would have denied.
func finding(d *event.Denial, release string) *event.Event {
	f := &event.FindingDetail{
		Product: d.Product, Rule: RuleBrake, Title: "denied, which did not count: it denies more than it may", Severity: event.Medium,
		QuestionID: d.QuestionID, Action: "would_deny", File: d.File,
		Fields: map[string]string{"release": release, "asked": d.Asked.String()},
	}
	if d.Fate == event.DenyCritical {
		f.Rule, f.Title, f.Severity = RuleCritical, "denied a file that this machine cannot do without, which did not count", event.High
	}
	if d.Process != nil {
		f.Target = d.Process.Key
	}
	return &event.Event{Kind: event.Finding, Time: d.Time, Process: d.Process, Finding: f}
}

// The rules of findings about denies that did not count.
const (
	RuleBrake    = "bailey.brake"
	RuleCritical = "bailey.critical_set"
)
