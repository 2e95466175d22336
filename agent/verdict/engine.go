package verdict

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
)

// Electorate is who can be asked. All methods are called from many goroutines, also from the thread that reads the
// kernel's questions: they must not block, open files or log.
type Electorate interface {
	// Voters returns the products subscribed to q's kind and which of them have q's file in their scope; nil for nobody.
	Voters(q *event.Question) (v *event.Voters, within event.ProductSet)
	// Send offers q (its ID is set) to the products in to, those in shadow marked as such, and returns those whose socket
	// was full and those that are gone. deadline is when a product's word stops to count.
	Send(v *event.Voters, q *event.Question, to, shadow event.ProductSet, deadline uint64, critical bool) (full, gone event.ProductSet)
	// Withdraw tells products that their answer to question id is no longer needed.
	Withdraw(v *event.Voters, id uint64, from event.ProductSet)
}

// Config configures an Engine. Electorate and Now are required.
type Config struct {
	Electorate Electorate
	Now        func() uint64 // nanoseconds since boot (CLOCK_BOOTTIME)

	Deadlines        map[event.Kind]time.Duration // default: exec 500 ms, open 200 ms, others 500 ms
	CriticalDeadline time.Duration                // for files of the critical set; default 100 ms
	ExtendCap        time.Duration                // how long one question may wait in all if a product asks for more; default 10 s
	Probation        time.Duration                // how long a degraded product must miss nothing to return; default 30 s
	MaxInFlight      int                          // default 4096; beyond it on_miss counts for all at once
	CacheSize        int                          // verdicts in the agent's own cache; default 65,536
	NoCache          bool                         // ask every time: no cache, no ignore marks, no sharing
	// Generation tells this engine's questions from those of earlier agents, whose answers may still come: ids start above
	// Generation questions a slot. It must grow faster than questions can be asked; 0 where no product outlives an agent.
	Generation uint64

	// Critical reports whether a file is in the critical set; called on the reader's thread. Default: none is.
	Critical func(*event.File) bool
	// FlushKernel drops every ignore mark; Invalidate returns after it. Default: there are no marks.
	FlushKernel func() error
	// Outcome gets one event of kind verdict per question that was asked or denied, after the kernel got its answer. Must
	// not block. Wanted, if set, is asked first whether anybody consumes them.
	Outcome func(*event.Event)
	Wanted  func() bool
	// Notable, if set, gets the same event of each question that was denied and of each that a live product denied in vain,
	// wanted or not, after Outcome. Must not block.
	Notable func(*event.Event)
	// OnAuthority hears that a live product became degraded, or returned. Called from one goroutine of Run, in order.
	OnAuthority func(product int, degraded bool, reason string)
	// Admit decides whether a deny that would stand may: false when the product denies too much. Called with a question's lock
	// held, so it must only look at memory. Default: all may.
	Admit func(*event.Denial) bool
	// OnDeny hears each deny of a live product that holds the deny grant, after the kernel has its answer, on the goroutine that
	// answered. It must not wait for anybody. Denies that are given again from the cache are counted instead: see Repeated.
	OnDeny func(event.Denial)
	Health *health.Registry // optional: a failing FlushKernel is entered as verdict.cache

	// Beats and Open are how others see from outside whether questions are answered: while Open is not 0, Run moves Beats on
	// at least every 20 ms, otherwise twice a second. Both are optional.
	Beats *atomic.Uint64
	Open  *atomic.Int64
}

// Defaults of Config.
const (
	DefaultDeadline         = 500 * time.Millisecond
	DefaultOpenDeadline     = 200 * time.Millisecond
	DefaultCriticalDeadline = 100 * time.Millisecond
	DefaultExtendCap        = 10 * time.Second
	DefaultProbation        = 30 * time.Second
	DefaultMaxInFlight      = 4096
	DefaultCacheSize        = 64 << 10
)

// Faults of a product: it answered what it was not asked.
var (
	ErrNotAsked     = errors.New("product answered a question that it was not asked")
	ErrSecondAnswer = errors.New("product answered a question twice")
)

// Engine asks, merges, caches and answers. Safe for concurrent use.
type Engine struct {
	cfg      Config
	start    time.Time
	deadline [64]uint64 // by kind
	table    *table
	queue    deadlines
	cache    *cache

	epoch    atomic.Uint64
	marking  [2]atomic.Int64 // answers that may set an ignore mark right now, by the epoch's parity
	flush    flushState
	byAsker  atomic.Uint64 // products whose latest live answer depended on the asker
	degraded atomic.Uint64
	standing [event.MaxProducts]standing
	changes  changes

	closed atomic.Bool
	stats  counters
}

// New returns an engine; nothing is answered at a deadline until Run runs.
func New(cfg Config) (*Engine, error) {
	if cfg.Electorate == nil || cfg.Now == nil {
		return nil, errors.New("make verdict engine: Electorate and Now are required")
	}
	if cfg.MaxInFlight < 0 || cfg.MaxInFlight > 1<<20 {
		return nil, fmt.Errorf("make verdict engine: %d questions in flight, allowed 1 to %d", cfg.MaxInFlight, 1<<20)
	}
	setDefault(&cfg.CriticalDeadline, DefaultCriticalDeadline)
	setDefault(&cfg.ExtendCap, DefaultExtendCap)
	setDefault(&cfg.Probation, DefaultProbation)
	setDefault(&cfg.MaxInFlight, DefaultMaxInFlight)
	setDefault(&cfg.CacheSize, DefaultCacheSize)
	if cfg.Critical == nil {
		cfg.Critical = func(*event.File) bool { return false }
	}
	if cfg.FlushKernel == nil {
		cfg.FlushKernel = func() error { return nil }
	}
	if cfg.Outcome == nil {
		cfg.Outcome, cfg.Wanted = func(*event.Event) {}, func() bool { return false }
	}
	if cfg.Wanted == nil {
		cfg.Wanted = func() bool { return true }
	}
	if cfg.Admit == nil {
		cfg.Admit = func(*event.Denial) bool { return true }
	}
	if cfg.OnDeny == nil {
		cfg.OnDeny = func(event.Denial) {}
	}
	if cfg.OnAuthority == nil {
		cfg.OnAuthority = func(int, bool, string) {}
	}
	if cfg.Beats == nil {
		cfg.Beats = new(atomic.Uint64)
	}
	if cfg.Open == nil {
		cfg.Open = new(atomic.Int64)
	}
	e := &Engine{cfg: cfg, start: time.Now(), table: newTable(cfg.MaxInFlight, cfg.Generation, cfg.Open), cache: newCache(cfg.CacheSize)}
	for i := range e.deadline {
		e.deadline[i] = uint64(DefaultDeadline)
	}
	e.deadline[event.Open] = uint64(DefaultOpenDeadline)
	for k, d := range cfg.Deadlines {
		if int(k) >= len(e.deadline) || d < time.Millisecond {
			return nil, fmt.Errorf("make verdict engine: deadline of %s is %v, the least is 1ms", k, d)
		}
		e.deadline[k] = uint64(d)
	}
	e.queue.init(cfg.MaxInFlight)
	e.flush.causes = make(map[string]uint64)
	e.changes.wake = make(chan struct{}, 1)
	return e, nil
}

// Earlier reports whether id is of a question that an earlier agent asked, or nobody.
func (e *Engine) Earlier(id uint64) bool { return id < e.table.first }

// clock is the engine's own, monotonic one: the latencies of answers are measured by it.
func (e *Engine) clock() time.Duration { return time.Since(e.start) }

func setDefault[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// budgetOf is the part of a deadline that products have.
func budgetOf(deadline uint64) uint64 { return deadline / 5 * 4 }

// changes are the authority transitions that wait to be told.
type changes struct {
	mu   sync.Mutex
	list []change
	wake chan struct{}
}

type change struct {
	product  int
	degraded bool
	reason   string
}
