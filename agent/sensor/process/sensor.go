package process

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
)

// Component is the name of the sensor's entry in the health registry.
const Component = "sensor.process"

const (
	defaultRingBytes    = 8 << 20
	defaultPollInterval = time.Second
)

// Config is what a Sensor needs.
type Config struct {
	Emit   func(*event.Event) // called on the sensor's thread, in the kernel's order; must not block
	Log    *slog.Logger
	Health *health.Registry

	// NeverAsk says whether a process, just found or after an exec, runs a program that must never wait for a verdict.
	// Called on the sensor's thread; it must not call the sensor. nil means none.
	NeverAsk func(*event.Process) bool

	// Wanted is whether somebody wants events or needs the tree from the start; SetWanted changes it.
	Wanted bool

	// Pins is a directory in a bpffs (FindBPFFS), for the sensors of one agent alone, in which the programs, their maps and the
	// ring outlive this process: what happens until the next sensor is in the ring. Empty: they end with the sensor. With
	// Pins, Wanted takes effect in Run.
	Pins string

	RingBytes    uint32        // size of the ring buffer, a power of two; default 8 MiB
	WithoutBPF   bool          // read /proc again and again instead, as where the kernel refuses BPF
	PollInterval time.Duration // how often then; default 1 s

	variant string // for tests: part of the schema's hash
}

// Sensor watches processes. Safe for concurrent use.
type Sensor struct {
	cfg    Config
	kernel *kernel // nil without BPF
	cells  *cells
	tree   *tree

	pins    *pins     // nil if nothing is pinned
	adopted bool      // the kernel's part is that of a sensor before
	older   []*kernel // generations that this one replaces, oldest first; of the goroutine that empties the rings

	wanted    atomic.Bool // the tree is kept; stored by who makes it right
	left      atomic.Bool // Leave was called
	restored  atomic.Pointer[Restored]
	switching sync.Mutex // held by SetWanted
	parking   sync.Once
	parked    chan struct{} // closed when Run reads no more

	gate       sync.Mutex // guards what follows
	running    bool       // Run was called
	over       bool       // nobody will serve any more
	reading    bool       // a goroutine empties the ring and will serve
	request    *request   // nil if nobody waits
	stocked    bool       // it was seen what is to be inherited
	inheriting bool       // something is
	declined   bool       // SetWanted(false) came before Run

	mu sync.Mutex // guards the changing of tree, and what follows
	// Of the goroutine that holds mu.
	cgroups cgroupNames
	seen    map[uint32]polled // without BPF

	emitted counters
	base    baseline
	overlap *overlap    // of the ring that is being emptied; of the goroutine that does, as are the next four
	failed  error       // replaced programs could not be replaced
	unread  bool        // the tree is incomplete
	lost    uint64      // the kernel's losses when the tree was last read anew
	lostAt  time.Time   // when that was, zero when it was long ago
	missed  atomic.Bool // somebody needed a process that the tree did not have yet
}

// counters are what user mode counts.
type counters struct {
	execs, forks, exits, duplicates, outside, malformed, unknownKinds, unknownProcesses, rescans atomic.Uint64

	// Records of programs that were replaced.
	oldExecs, oldForks, oldExits, overlap atomic.Uint64
}

func (c *counters) add(k event.Kind) {
	switch k {
	case event.Exec:
		c.execs.Add(1)
	case event.Fork:
		c.forks.Add(1)
	case event.Exit:
		c.exits.Add(1)
	}
}

// New attaches to the kernel and, if Wanted, reads the processes that are there; nothing that happens after its return is
// missed then, and Run emits it. Where the kernel refuses, New succeeds all the same, says so in the health registry and reads /proc.
//
// With Pins it adopts what a sensor before it left, or prepares to replace it, and reads no record of it: the sensor before
// may go on meanwhile, in this process or in another. Only one reads at a time.
func New(cfg Config) (*Sensor, error) {
	if cfg.Emit == nil || cfg.Log == nil || cfg.Health == nil {
		return nil, errors.New("process sensor needs Emit, Log and Health")
	}
	if cfg.NeverAsk == nil {
		cfg.NeverAsk = func(*event.Process) bool { return false }
	}
	if cfg.RingBytes == 0 {
		cfg.RingBytes = defaultRingBytes
	}
	if cfg.PollInterval == 0 {
		cfg.PollInterval = defaultPollInterval
	}
	s := &Sensor{cfg: cfg, tree: newTree(), seen: make(map[uint32]polled), parked: make(chan struct{})}
	s.restored.Store(new(Restored))
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Sensor) open() error {
	refused := errors.New("switched off by configuration")
	if !s.cfg.WithoutBPF {
		refused = s.load()
	}
	fd := -1
	if s.kernel != nil {
		fd = s.kernel.objects.Cells.FD()
	}
	var err error
	if s.cells, err = mapCells(fd); err != nil {
		return err
	}
	if s.kernel == nil {
		s.degrade(refused)
	} else {
		s.whole()
	}
	if s.cfg.Wanted && s.pins == nil {
		s.activate()
	}
	return nil
}

func (s *Sensor) whole() {
	s.cfg.Health.Set(health.Entry{Component: Component, Status: health.OK, Summary: "every exec, fork and exit is seen by BPF programs in the kernel"})
}

func (s *Sensor) degrade(refused error) {
	s.cfg.Health.Set(health.Entry{
		Component: Component, Status: health.Degraded,
		Summary: fmt.Sprintf("no BPF in the kernel (%v): processes are read from /proc every %v, short ones are missed", refused, s.cfg.PollInterval),
		Remedy:  remedy(refused),
	})
}

// Close detaches from the kernel and removes what is pinned, unless another sensor uses it or Leave was called. No method
// may be called during or after it.
func (s *Sensor) Close() error {
	var errs []error
	if s.pins != nil && !s.left.Load() {
		errs = append(errs, s.unpin())
	}
	for _, k := range append(s.older, s.kernel) {
		if k != nil {
			errs = append(errs, k.letGo())
		}
	}
	if s.pins != nil {
		s.pins.close()
	}
	if s.cells != nil {
		errs = append(errs, s.cells.close())
	}
	s.kernel, s.older, s.pins, s.cells = nil, nil, nil, nil
	return errors.Join(errs...)
}

// Lookup returns the process that has pid now, or had it last if it has ended; nil if the tree does not know it, or if the
// kernel has since given the pid to another process or that process has executed another program, or while the tree is not
// wanted. It opens no file and waits for nobody.
func (s *Sensor) Lookup(pid uint32) *event.Process {
	if !s.wanted.Load() {
		return nil
	}
	n := s.tree.newest(pid)
	if n == nil || s.kernel != nil && (s.cells.get(pid)^uint16(n.cell.Load()))&^cellFlags != 0 {
		s.missed.Store(true)
		return nil
	}
	return n.proc.Load()
}

// loadWait is how long Load gives the ring's reader to catch up; it takes 40 µs at the median.
const loadWait = 2 * time.Millisecond

// Load is Lookup for a caller that may wait and open files in /proc. A process that only /proc knows has its start time
// rounded down to 10 ms.
func (s *Sensor) Load(pid uint32) (*event.Process, error) {
	for wait := 50 * time.Microsecond; ; wait *= 2 {
		if p := s.Lookup(pid); p != nil {
			return p, nil
		}
		if s.kernel == nil || wait > loadWait || !s.wanted.Load() {
			break
		}
		_ = s.kernel.ring.flush() // the reader may be waiting for more; it fails only when the sensor is being closed
		time.Sleep(wait)          //nolint:forbidigo // the kernel is waited for, for milliseconds
	}
	p, err := readProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("load process %d: %w", pid, err)
	}
	if !s.wanted.Load() {
		return p, nil
	}
	if s.kernel == nil {
		return s.adoptPolled(p), nil
	}
	if known := s.Lookup(pid); known != nil { // caught up meanwhile
		return known, nil
	}
	if n := s.tree.newest(pid); n != nil { // behind, but with the exact start
		if known := n.proc.Load(); sameTick(known.Key, p.Key) {
			p.Key, p.Parent = known.Key, known.Parent
		}
	}
	return p, nil
}

// Ancestors returns the parents of a process, its own first, as far as they are known; those that ended are kept as long
// as a descendant lives.
func (s *Sensor) Ancestors(key event.ProcessKey) []*event.Process {
	n := s.tree.find(key)
	if n == nil {
		return nil
	}
	return n.ancestors()
}

// Processes returns all living processes in no order; none while the tree is not wanted.
func (s *Sensor) Processes() []*event.Process {
	if !s.wanted.Load() {
		return nil
	}
	nodes := s.tree.living()
	out := make([]*event.Process, len(nodes))
	for i, n := range nodes {
		out[i] = n.proc.Load()
	}
	return out
}

// Platform reports whether pid is the agent or descends from it. It reads memory that the kernel keeps up to date at every
// fork, so it is right before the child's first instruction.
func (s *Sensor) Platform(pid uint32) bool { return s.cells.get(pid)&cellPlatform != 0 }

// NeverAsk reports whether pid runs a program that must never wait for a verdict. The kernel takes the mark away at every
// fork and exec.
func (s *Sensor) NeverAsk(pid uint32) bool { return s.cells.get(pid)&cellNeverAsk != 0 }

// MarkPlatform makes pid, and the descendants that it has and will have, part of the platform. Meant for the agent's own
// pid at its start.
func (s *Sensor) MarkPlatform(pid uint32) error {
	s.cells.mark(pid, cellPlatform) // first: the kernel gives it to every child from here on
	if err := s.readUnwanted(); err != nil {
		return fmt.Errorf("mark the descendants of process %d: %w", pid, err)
	}
	for _, n := range s.tree.living() {
		key := n.proc.Load().Key
		for up := n.parent.Load(); up != nil; up = up.parent.Load() {
			if up.proc.Load().Key.PID == pid && !up.ended.Load() {
				s.cells.mark(key.PID, cellPlatform)
				break
			}
		}
	}
	return nil
}

// readUnwanted reads the processes once if nobody else keeps the tree.
func (s *Sensor) readUnwanted() error {
	s.switching.Lock()
	defer s.switching.Unlock()
	switch {
	case s.wanted.Load():
		return nil
	case s.kernel == nil:
		return s.poll(false)
	}
	return s.rescan()
}
