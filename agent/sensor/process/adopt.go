package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bailey/agent/health"
	"bailey/internal/boottime"
	"bailey/internal/bpffs"
)

// PinsComponent is the name in the health registry of what outlives the agent.
const PinsComponent = Component + ".pins"

// Restored is what a sensor found of the sensors before it.
type Restored struct {
	Adopted  bool   // it goes on with their programs, maps and ring
	Replaced int    // it replaces so many of their generations of programs, which do not fit
	Sending  bool   // the programs sent records while nobody read: SetWanted decides what becomes of them
	Backlog  uint64 // records in the rings

	// Of the backlog, those that were given to Emit by a reader that was killed before it could say that Emit returned. They
	// are the first of their ring and are emitted again: at most one for each generation of programs.
	InDoubt uint64

	// Events that no reader reported as lost yet: the ring was full while nobody read, or a program interrupted itself.
	LostInKernel uint64
	// Records that were taken from a ring by somebody else. A reader that is killed loses none.
	LostInReader uint64
	// Records that programs of another version sent and that this one cannot read.
	Unreadable uint64
}

// Restored returns what was found by New, and more exactly once SetWanted or Config.Wanted had it dealt with.
func (s *Sensor) Restored() Restored { return *s.restored.Load() }

// load makes the sensor's part in the kernel: of what is pinned, where that is asked for and fits, or anew.
func (s *Sensor) load() error {
	b, err := newBlueprint(s.cfg.RingBytes, s.cfg.variant)
	if err != nil {
		return err
	}
	if s.cfg.Pins == "" {
		s.kernel, err = loadPrograms(b, false)
		return err
	}
	if err = s.loadPinned(b); err == nil {
		return nil
	}
	if s.pins != nil {
		s.pins.close()
		s.pins = nil
	}
	s.unpinned(err)
	if s.kernel == nil {
		s.kernel, err = loadPrograms(b, false)
		return err
	}
	return nil
}

func (s *Sensor) unpinned(err error) {
	remedy := "see the agent's log for the kernel's answer, and report it"
	if errors.Is(err, bpffs.ErrNone) {
		remedy = "mount a bpffs: mount -t bpf bpf /sys/fs/bpf"
	}
	s.cfg.Health.Set(health.Entry{
		Component: PinsComponent, Status: health.Degraded,
		Summary: fmt.Sprintf("process events are not kept while the agent is restarted: the BPF programs are not pinned (%v)", err), Remedy: remedy,
	})
}

// loadPinned adopts or makes and pins this version's generation. If it fails after loading, the sensor has programs that
// are not pinned.
func (s *Sensor) loadPinned(b *blueprint) (err error) {
	if s.pins, err = openPins(filepath.Clean(s.cfg.Pins)); err != nil {
		return err
	}
	unlock, err := s.pins.setup()
	if err != nil {
		return err
	}
	defer unlock()
	others, err := s.openGenerations()
	if err != nil {
		return err
	}
	defer func() {
		for _, k := range others {
			err = errors.Join(err, k.letGo())
		}
	}()
	mine, err := s.pins.takeReader()
	if err != nil {
		return err
	}
	if others = s.adoptNewest(others, b); s.kernel == nil {
		if s.kernel, err = loadPrograms(b, true); err != nil {
			return err
		}
		if err := s.pins.pin(s.kernel, b.schema); err != nil {
			return err
		}
	}
	chain := append(slices.Clone(others), s.kernel)
	if s.kernel.ledger.authority == 0 {
		s.copyPlatform(others)
		if mine && len(others) == 0 {
			s.kernel.ledger.authority = boottime.Now()
			s.kernel.vars.want(s.cfg.Wanted)
		}
	}
	s.restore(chain)
	s.pinned()
	return nil
}

// openGenerations opens all generations but those that were only prepared, oldest first, and removes what cannot be used.
// Only with the directory of pins locked.
func (s *Sensor) openGenerations() ([]*kernel, error) {
	all, err := s.pins.list()
	if err != nil {
		return nil, err
	}
	var out []*kernel
	for _, g := range all {
		if s.kernel != nil && s.kernel.pin != nil && s.kernel.pin.name == g.name {
			continue
		}
		k, err := s.pins.openRing(g)
		if err == nil && k.ledger.authority != 0 {
			k.openPrograms(s.pins.dir)
			out = append(out, k)
			continue
		}
		if err != nil {
			s.pins.note("removed %s with what was in it: %v", g.name, err)
		} else if err := k.letGo(); err != nil {
			s.cfg.Log.Warn("prepared BPF programs stay open", "err", err)
		}
		if _, err := s.pins.drop(&g); err != nil {
			s.pins.note("%s cannot be removed: %v", g.name, err)
		}
		g.close()
	}
	slices.SortFunc(out, func(a, b *kernel) int { return cmp.Compare(a.ledger.authority, b.ledger.authority) })
	return out, nil
}

// adoptNewest makes the newest of others the sensor's own, if it fits, and returns the rest.
func (s *Sensor) adoptNewest(others []*kernel, b *blueprint) []*kernel {
	if len(others) == 0 || others[len(others)-1].pin.schema != b.schema {
		return others
	}
	last := len(others) - 1
	k, err := s.pins.adopt(*others[last].pin, b)
	if err != nil {
		s.pins.note("replaces %s: %v", others[last].pin.name, err)
		return others
	}
	if err := others[last].letGo(); err != nil {
		s.cfg.Log.Warn("pinned BPF objects stay open twice", "err", err)
	}
	s.kernel, s.adopted = k, true
	return others[:last]
}

// unpin removes the pins of the sensor's own generation, and where nobody else reads all others that nobody uses.
func (s *Sensor) unpin() error {
	unlock, err := s.pins.setup()
	if err != nil {
		return err
	}
	defer unlock()
	mine, err := s.pins.takeReader()
	if err != nil {
		return err
	}
	var errs []error
	held := make(map[string]bool)
	for _, k := range append(s.older, s.kernel) {
		if k == nil || k.pin == nil {
			continue
		}
		held[k.pin.name] = true
		if mine || k.ledger.authority == 0 {
			_, err := s.pins.drop(k.pin)
			errs = append(errs, err)
		}
	}
	if !mine {
		return errors.Join(errs...)
	}
	rest, err := s.pins.list()
	errs = append(errs, err)
	for i := range rest {
		if !held[rest[i].name] {
			_, err := s.pins.drop(&rest[i])
			rest[i].close()
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, s.pins.clear())...)
}

// copyPlatform gives new cells the platform's bits of the newest that are replaced: twice, for the children that a process
// had after its cell was looked at and before it was copied.
func (s *Sensor) copyPlatform(others []*kernel) {
	if len(others) == 0 {
		return
	}
	old, err := openCells(filepath.Join(s.pins.dir, others[len(others)-1].pin.name, pinCells))
	if err != nil {
		s.pins.note("the marks of platform processes are made anew: %v", err)
		return
	}
	defer old.close() //nolint:errcheck // memory
	own, err := mapCells(s.kernel.objects.Cells.FD())
	if err != nil {
		s.pins.note("the marks of platform processes are made anew: %v", err)
		return
	}
	defer own.close() //nolint:errcheck // memory
	for range 2 {
		own.copyFlag(old, cellPlatform)
	}
}

// restore sums up what is in generations, and makes them go on where they were left.
func (s *Sensor) restore(chain []*kernel) {
	r := Restored{Replaced: len(chain) - 1, Adopted: s.adopted}
	for i, k := range chain {
		lost := k.lost()
		if i+1 < len(chain) && chain[i+1].ledger.overlaps(k) {
			lost = chain[i+1].ledger.fromLost
		}
		at := k.ring.at()
		dealt, known := k.ledger.resume(at)
		waiting, err := k.waiting()
		if err != nil {
			s.pins.note("the ring of %s: %v", k.pin.name, err)
		}
		r.Sending = r.Sending || k.vars.wants() && (k != s.kernel || s.adopted)
		r.LostInKernel += lost.minus(k.ledger.known).sum()
		switch {
		case k.ledger.records != recordFormat:
			r.Unreadable += waiting
			continue
		case !known:
			r.LostInReader += k.vanished(dealt)
		case k.ledger.begun > at:
			r.InDoubt++
		}
		r.Backlog += waiting
	}
	s.restored.Store(&r)
}

// vanished returns how many records were sent, are not in the ring and were not dealt with by a reader of ours. Programs
// that count now and send in a moment make it too large for a moment: it is the least of several looks.
func (k *kernel) vanished(dealt taken) uint64 {
	least := uint64(1 << 63)
	for range 20 {
		waiting, err := k.waiting()
		if err != nil {
			return 0
		}
		c := k.vars.totals()
		sent := c.Execs + c.Forks + c.Exits - c.LostExecs - c.LostForks - c.LostExits - c.LostScratch
		if accounted := dealt.sum() + waiting; sent >= accounted {
			least = min(least, sent-accounted)
		} else {
			least = 0
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // other processors are waited for
	}
	return least
}

// pinned says what was found.
func (s *Sensor) pinned() {
	r := s.Restored()
	what := []string{"process events are kept while the agent is restarted: the BPF programs are pinned in " + s.pins.dir}
	switch {
	case r.Adopted:
		what = append(what, fmt.Sprintf("adopted from the agent before with %d events waiting, %d lost", r.Backlog, r.LostInKernel+r.LostInReader+r.Unreadable))
	case r.Replaced > 0:
		what = append(what, fmt.Sprintf("they replace those of the agent before with %d events waiting, %d lost", r.Backlog, r.LostInKernel+r.LostInReader+r.Unreadable))
	}
	s.cfg.Health.Set(health.Entry{Component: PinsComponent, Status: health.OK, Summary: strings.Join(append(what, s.pins.noted()...), "; ")})
}

// begin waits until no other sensor reads, and looks at what is there then. It returns false if it is not to read.
func (s *Sensor) begin(ctx context.Context) (bool, error) {
	if s.pins == nil {
		return !s.left.Load(), nil
	}
	if mine, err := s.pins.awaitReader(ctx, s.left.Load); !mine {
		return false, err
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	return true, s.takeStock()
}

// takeStock opens what was pinned since New, and decides whether there is something to inherit. Once, by who may read.
func (s *Sensor) takeStock() (err error) {
	if s.stocked || s.pins == nil {
		return nil
	}
	unlock, err := s.pins.setup()
	if err != nil {
		return err
	}
	defer unlock()
	if s.older, err = s.openGenerations(); err != nil {
		return err
	}
	s.stocked = true
	chain := s.dropFinished(append(s.older, s.kernel))
	s.older = slices.Clone(chain[:len(chain)-1])
	s.restore(chain)
	own := s.kernel
	s.base = baseline{taken: own.ledger.taken[own.ledger.turn], known: own.ledger.known, totals: own.vars.totals()}
	s.lost = own.ledger.known.sum()
	if own.ledger.authority == 0 && len(s.older) == 0 {
		own.ledger.authority = boottime.Now()
		own.vars.want(s.cfg.Wanted)
	}
	s.inheriting = s.adopted && s.Restored().Sending || s.cfg.Wanted || len(s.older) > 0
	s.pinned()
	return nil
}
