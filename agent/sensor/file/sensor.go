package file

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/agent/health"
)

// ProcessSource knows the processes.
type ProcessSource interface {
	// Lookup returns the process of pid, nil when unknown. The reader calls it: it must open no file and wait for nothing.
	Lookup(pid uint32) *event.Process
	// Load is Lookup that may read /proc. Workers call it.
	Load(pid uint32) (*event.Process, error)
}

// IdentitySource says who must not be made to wait. The reader calls it: it must open no file and wait for nothing.
type IdentitySource interface {
	// Platform reports whether pid is the agent, a product or another descendant of the agent.
	Platform(pid uint32) bool
	// NeverAsk reports whether pid is in the never-ask set.
	NeverAsk(pid uint32) bool
}

// Config configures a Sensor.
type Config struct {
	// Watch lists the mount points to watch, each the root of its file system. Empty means every local file system, of
	// every mount namespace, present and future.
	Watch     []string
	Processes ProcessSource
	Identity  IdentitySource
	// Exempt reports whether pid is a daemon that a product's answers depend on. Optional; as strict as IdentitySource.
	Exempt func(pid uint32) bool
	// Ask takes over a question: it must see to it that the question is answered and released. It must not block.
	Ask func(*event.Question)
	// Emit takes a file event. It must not block. Events of the questions are not emitted here but by the verdict engine.
	Emit func(*event.Event)
	// Forget hears that a writer closed a file, whether or not anybody wants events of it: what is remembered of its content
	// no longer holds. ForgetAll hears that such a close may have gone unheard. Both are optional and must not block on a
	// file opener; they are called on the notifier's goroutine.
	Forget    func(dev, ino uint64)
	ForgetAll func()
	Log       *slog.Logger
	Health    *health.Registry
	// Keeper holds the sensor's groups beyond its life, so that a successor goes on with them. Optional.
	Keeper Keeper
	// Pulse is how others see from outside whether questions are read. Optional.
	Pulse *Pulse

	MaxPending  int           // questions in flight; default 4096, at most half of the descriptors
	Workers     int           // readers of unknown processes; default 4
	RescanEvery time.Duration // for mounts in other mount namespaces; default 5 s

	only  func(mountPoint string) bool // tests: which mount points exist for this sensor
	queue int                          // tests: length of the workers' queue
	polls bool                         // tests: as on a kernel that makes no event for the doorbell
}

// Keeper holds descriptors that outlive the agent.
type Keeper interface {
	// Keep makes the keeper hold a duplicate of fd under name, in place of what it held there.
	Keep(name string, fd int) error
	// Take returns what an earlier agent left under name; the caller owns it.
	Take(name string) (fd int, ok bool)
}

// Pulse is memory that others watch. Every field is set.
type Pulse struct {
	Serving  *atomic.Uint32 // 1 while the readers take questions, 2 while a successor is about to
	Armed    *atomic.Uint32 // 1 while marks that ask questions are set
	Turns    *atomic.Uint64 // moved on by every reader, at every turn
	Highest  *atomic.Uint32 // the highest descriptor number that a question had
	Answered *atomic.Uint64 // questions answered
	// Bypassing is 1 while somebody else reads the questions: they must not block then.
	Bypassing *atomic.Uint32
}

// Sensor asks and tells about files. Safe for concurrent use.
type Sensor struct {
	cfg       Config
	questions int // the fanotify group of ordinary file systems' questions
	stacked   int // the group of stacked file systems' questions: see stack.go
	ledger    int
	events    eventsSupport
	wake      int // eventfd: ends the polls of all readers
	nudge     int // eventfd: wakes the mark manager
	bell      doorbell

	slab    *slab
	lastID  atomic.Uint64
	unknown chan *pending
	scope   atomic.Pointer[scope]
	cache   *cache
	mounts  *mounts
	head    *headroom
	count   counters

	adopted  bool // the groups are those of an earlier agent
	pulse    Pulse
	stopping atomic.Bool // nothing more is read
	abandons atomic.Bool // nobody is asked any more: whoever still waits is let go
	leaving  atomic.Bool
	ready    chan struct{}
	pace     atomic.Int64  // how often watchReaders looks, in nanoseconds; 0: not at all
	paced    chan struct{} // it changed
	alarms   atomic.Uint32
	troubled time.Time // when the questions last gave an alarm; the mark manager's
	ran      atomic.Bool
}

// New creates the groups but marks nothing yet: that is Run's.
func New(cfg Config) (*Sensor, error) {
	if cfg.Processes == nil || cfg.Identity == nil || cfg.Ask == nil || cfg.Emit == nil {
		return nil, errors.New("create the file sensor: Processes, Identity, Ask and Emit are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.MaxPending = orDefault(cfg.MaxPending, 4096)
	cfg.Workers = orDefault(cfg.Workers, 4)
	if cfg.RescanEvery <= 0 {
		cfg.RescanEvery = 5 * time.Second
	}
	if err := checkWatch(cfg.Watch); err != nil {
		return nil, err
	}
	s := &Sensor{cfg: cfg, questions: -1, stacked: -1, ledger: -1, wake: -1, nudge: -1, bell: doorbell{dir: -1}, events: eventsSupport{fd: -1},
		ready: make(chan struct{}), paced: make(chan struct{}, 1), unknown: make(chan *pending, orDefault(cfg.queue, 256))}
	s.scope.Store(&scope{})
	s.pulse = Pulse{Serving: new(atomic.Uint32), Armed: new(atomic.Uint32), Turns: new(atomic.Uint64), Highest: new(atomic.Uint32), Bypassing: new(atomic.Uint32), Answered: new(atomic.Uint64)}
	if cfg.Pulse != nil {
		s.pulse = *cfg.Pulse
	}
	if err := s.open(); err != nil {
		s.closeAll()
		return nil, err
	}
	s.slab = newSlab(s, s.head.questions(cfg.MaxPending))
	s.mounts = newMounts(s)
	return s, nil
}

func orDefault(v, def int) int {
	if v <= 0 {
		return def
	}
	return v
}

func (s *Sensor) open() (err error) {
	if s.head, err = newHeadroom(); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if err := s.openGroups(); err != nil {
		return err
	}
	if s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("create the sensor's wake-up: %w", err)
	}
	if s.nudge, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("create the sensor's wake-up: %w", err)
	}
	if !s.cfg.polls {
		s.bell = s.newBell()
	}
	s.cache = &cache{s: s}
	s.cache.addFlags, s.cache.dropFlags, s.cache.enabled = probeCache(s.questions)
	if err := s.openEventGroup(); err != nil {
		// Questions work without; nothing can be cached then, because nobody would tell of writes.
		s.cache.enabled = false
		s.report(componentEvents, health.Degraded, "No file events: "+err.Error(), "Use a kernel with fanotify FAN_REPORT_DFID_NAME (5.9 or a backport).")
	}
	s.reportCache()
	return nil
}

func (s *Sensor) reportCache() {
	if s.cache.enabled {
		s.report(componentCache, health.OK, "Verdicts are cached in the kernel by evictable ignore marks.", "")
		return
	}
	s.report(componentCache, health.Degraded, "Verdicts are not cached in the kernel: every question is asked.",
		"Use a kernel with FAN_MARK_EVICTABLE (5.19 or a backport) and file handles (FAN_REPORT_FID).")
}

// Ready is closed when Run has made its first scan: every mount that exists then is marked as wanted.
func (s *Sensor) Ready() <-chan struct{} { return s.ready }

// Run reads questions and events until ctx ends. It then removes the marks, answers whatever is pending, closes the groups
// and returns; nobody is left waiting. It can run once.
func (s *Sensor) Run(ctx context.Context) error {
	if s.ran.Swap(true) {
		return errors.New("run the file sensor: it ran already")
	}
	if s.adopted {
		s.adoptMarks()
	}
	var readers, workers sync.WaitGroup
	watched := []*reader{newReader(s, s.questions), newReader(s, s.stacked)}
	s.pulse.Serving.Store(serving) // first: from here on nobody else reads
	for _, r := range watched {
		r.outside = !s.wait(r.group, true)
		readers.Go(r.run)
	}
	ended := make(chan struct{})
	workers.Go(func() { s.watchReaders(watched, ended) })
	for range s.cfg.Workers {
		workers.Go(s.worker)
	}
	if s.events.fd >= 0 {
		readers.Go(newNotifier(s).run)
	}
	s.head.hold(s.wake)
	err := s.mounts.run(ctx)
	s.stop(&readers, &workers, ended)
	return err
}

// stop ends everything in the order in which nobody can be left waiting: no new questions, then answers to the old ones, then
// the group, whose closing allows what is still queued.
func (s *Sensor) stop(readers, workers *sync.WaitGroup, ended chan struct{}) {
	if s.leaving.Load() {
		s.pulse.Serving.Store(handingOver)
		s.mounts.rest()
	} else {
		s.mounts.clear()
		s.pulse.Armed.Store(0)
		s.pulse.Serving.Store(0)
	}
	s.stopping.Store(true)
	gone := make(chan struct{})
	go func() {
		readers.Wait()
		close(gone)
	}()
	s.wakeReaders(gone)
	if s.leaving.Load() {
		s.readOut()
		s.awaitAnswers()
	}
	s.abandons.Store(true)
	close(ended)
	close(s.unknown)
	for i := range s.slab.all {
		s.abandon(&s.slab.all[i])
	}
	workers.Wait()
	// Whoever won the race to answer may still be writing to the group. The write takes microseconds.
	for s.count.unanswered.Load() > 0 {
		time.Sleep(100 * time.Microsecond) //nolint:forbidigo // a system call is waited for, which nothing announces
	}
	s.head.relieve()
	s.closeAll()
}

// abandon lets a question go that somebody else still holds; releasing it stays theirs.
func (s *Sensor) abandon(p *pending) {
	if p.q.Source != nil {
		p.q.Answer(event.Decision{Allow: true, Reason: event.ByShutdown})
	}
}

// Close releases what New made; only for a sensor whose Run was never called.
func (s *Sensor) Close() {
	if !s.ran.Swap(true) {
		s.closeAll()
	}
}

func (s *Sensor) closeAll() {
	s.bell.close()
	for _, fd := range []int{s.questions, s.stacked, s.events.fd, s.ledger, s.wake, s.nudge} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// SetQuestions says which questions are wanted. Once it returns, every known file system's marks say so.
func (s *Sensor) SetQuestions(exec, open bool) {
	s.mounts.change(func(w *wanted) { w.exec, w.open = exec, open })
}

// SetEvents says which file events are wanted; other kinds in the set are not this sensor's.
func (s *Sensor) SetEvents(kinds event.KindSet) {
	s.mounts.change(func(w *wanted) { w.events = kinds })
}

// SetOpenScope says below which absolute paths opens are asked about; none by default. With a path that is not absolute,
// which the caller should have refused, the scope stays as it was.
func (s *Sensor) SetOpenScope(paths []string) {
	sc, err := newScope(paths)
	if err != nil {
		s.cfg.Log.Warn("open scope not changed", "err", err)
		return
	}
	s.scope.Store(sc)
	s.mounts.change(func(w *wanted) { w.scope = sc })
	// Files that were outside may be inside now.
	if err := s.FlushCache(); err != nil {
		s.cfg.Log.Warn("cached verdicts not dropped", "err", err)
	}
}

// FlushCache drops all verdicts that the kernel has cached. When it returns, no verdict from before is in force, but for the
// microsecond in which one that is being cached right now finds out and is taken back.
func (s *Sensor) FlushCache() error {
	if s.stopping.Load() {
		return nil
	}
	if err := s.cache.flush(); err != nil {
		return fmt.Errorf("drop the cached verdicts: %w", err)
	}
	return nil
}

// Rescan looks for new mounts in all mount namespaces soon; call it when a process enters a new one. It does not wait.
func (s *Sensor) Rescan() { s.mounts.poke() }
