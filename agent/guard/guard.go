package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/cilium/ebpf/ringbuf"

	"bailey/internal/boottime"
	"bailey/internal/bpffs"
	"bailey/internal/bpflsm"
)

// Config is what Start needs.
type Config struct {
	Pins     string   // a directory of its own in a bpffs, which need not exist; its parent must
	Scratch  string   // a directory in which the hooks are tried; default: the system's for temporary files
	Paths    []string // files and directories that only trusted processes may change, with all below
	Programs []string // executables that stay trusted when a trusted process executes them; they are protected too
	Cgroups  []string // directories of control groups that only trusted processes may change, with all below
	Pinned   []string // directories of pins: protected, and the maps that are pinned there, whoever asks for them how

	// Processes that are trusted besides the calling one: the keeper. Protected ones are products.
	Trusted, Protected []uint32

	// Service is the control group, as in /proc/PID/cgroup, in which the service manager starts a Program that becomes trusted
	// with no trusted parent. Empty: once all trusted processes are dead, nobody becomes trusted.
	Service string
	// Manager is the process id of the service manager; default 1.
	Manager uint32
	// Shutdown are the programs that the service manager executes when the machine goes down, which ends the guard; default
	// systemd's. Those that do not exist are passed over.
	Shutdown []string

	AllowTracing bool // others may load BPF programs that can signal processes, override calls or judge
	AllowKexec   bool // others may load another kernel
	Observe      bool // report, and refuse nothing

	Emit func(Attempt) // called by Run, never at the same time; nil: attempts are counted only
	Log  *slog.Logger
}

func (c *Config) complete() error {
	if c.Log == nil {
		return errors.New("no logger")
	}
	if !filepath.IsAbs(c.Pins) {
		return fmt.Errorf("the directory for pins %q is not absolute", c.Pins)
	}
	if c.Manager == 0 {
		c.Manager = 1
	}
	if c.Shutdown == nil {
		c.Shutdown = []string{"/usr/lib/systemd/systemd-shutdown", "/lib/systemd/systemd-shutdown"}
	}
	if c.Emit == nil {
		c.Emit = func(Attempt) {}
	}
	return nil
}

// Guard is the guard of this machine, seen by a trusted process. Safe for concurrent use, but for Run, which is called once.
type Guard struct {
	cfg     Config
	adopted bool
	pinned  bool     // by this process
	missing []string // hooks that this kernel does not have
	silent  []string // hooks that it has and does not call

	kernel  *bpflsm.Parts
	control *control
	ring    *ringbuf.Reader

	mu    sync.Mutex // guards what follows, and learning
	homes map[uint32]*os.File
}

// Start puts the guard in force, locked: the one that is pinned, if it is of this version, or a new one in its place. It must
// be called by a process that is to be trusted; one that a locked guard does not trust gets ErrNotTrusted.
func Start(cfg Config) (*Guard, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	if err := supported(); err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	g := &Guard{cfg: cfg, homes: map[uint32]*os.File{}}
	if err := g.start(); err != nil {
		err = fmt.Errorf("start the guard: %w", err)
		if g.pinned && !g.adopted { // nobody would hear what it refuses
			err = errors.Join(err, bpffs.Remove(cfg.Pins))
		}
		_ = os.Remove(cfg.Pins) // if nothing is in it
		return nil, errors.Join(err, g.Leave())
	}
	return g, nil
}

func (g *Guard) start() error {
	b, err := newBlueprint()
	if err != nil {
		return err
	}
	g.missing = slices.Sorted(maps.Values(b.Missing))
	if err := makePins(g.cfg.Pins); err != nil {
		return err
	}
	if g.kernel, err = adopt(g.cfg.Pins, b); err != nil {
		return err
	}
	if g.adopted = g.kernel != nil; !g.adopted {
		if g.kernel, err = load(b); err != nil {
			return err
		}
	}
	if g.control, err = shareControl(g.kernel, b); err != nil {
		return err
	}
	if err := g.configure(); err != nil {
		return err
	}
	if !g.adopted {
		if err := g.kernel.Pin(g.cfg.Pins, completePrefix+b.Schema); err != nil {
			return err
		}
		g.pinned = true
	}
	// The pins themselves, and the mounts that they are in, are only there now.
	if err := g.Protect(g.cfg.Pins); err != nil {
		return err
	}
	g.Lock()
	g.try(b)
	dropOthers(g.cfg.Pins, b, g.cfg.Log)
	if g.ring, err = ringbuf.NewReader(g.kernel.Maps[mapAttempts]); err != nil {
		return fmt.Errorf("open the ring of attempts: %w", err)
	}
	g.cfg.Log.Info("the guard is locked", "adopted", g.adopted, "missing", g.missing, "silent", g.silent)
	return nil
}

// try finds out whether the kernel calls each hook that something harmless can call.
func (g *Guard) try(b *bpflsm.Blueprint) {
	trial, err := b.Try(g.kernel, slices.Collect(maps.Keys(b.Spec.Programs)), g.cfg.Scratch)
	if err != nil {
		g.cfg.Log.Warn("it is not known whether the kernel calls every hook of the guard", "err", err)
	}
	g.silent = trial.Silent
}

// configure tells the programs what is trusted and what is protected. Nothing that was protected before becomes free.
func (g *Guard) configure() error {
	if err := g.control.describe(g.cfg); err != nil {
		return err
	}
	if err := g.registerMaps(); err != nil {
		return err
	}
	if err := g.Trust(uint32(os.Getpid())); err != nil {
		return err
	}
	for _, pid := range g.cfg.Trusted {
		if err := g.Trust(pid); err != nil {
			return err
		}
	}
	for _, pid := range g.cfg.Protected {
		if err := g.ProtectProcess(pid); err != nil {
			return err
		}
	}
	if err := g.protect(flagTree|flagProgram, g.cfg.Programs...); err != nil {
		return err
	}
	if err := g.Protect(append(append([]string{}, g.cfg.Paths...), g.cfg.Cgroups...)...); err != nil {
		return err
	}
	if err := g.protectPinned(g.cfg.Pinned); err != nil {
		return err
	}
	for _, file := range switchesOf(g.control.disks()) {
		if err := g.learn(flagTree, file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("protect %s: %w", file, err)
		}
	}
	for _, program := range g.cfg.Shutdown {
		if err := g.learn(flagShutdown, program); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Adopted says whether an earlier agent's guard was taken over, which was in force all the time.
func (g *Guard) Adopted() bool { return g.adopted }

// Missing returns the hooks that this kernel does not have, of those that protect everywhere else.
func (g *Guard) Missing() []string { return g.missing }

// Silent returns the hooks that this kernel has and does not call, as far as that could be tried.
func (g *Guard) Silent() []string { return g.silent }

// Lock puts the guard in force, at once and until Unlock.
func (g *Guard) Lock() { g.control.lock() }

// Unlock lets everybody do everything until a time in nanoseconds since boot, which no change of the wall clock moves. The guard
// locks itself then, whether or not anybody still lives.
func (g *Guard) Unlock(until uint64) { g.control.unlock(until) }

// Relock ends an Unlock early.
func (g *Guard) Relock() { g.control.unlock(0) }

// Locked says whether the guard refuses anything now.
func (g *Guard) Locked() bool { return g.control.locked(boottime.Now()) }

// Run calls Config.Emit with every attempt, and puts processes that were moved to another control group back, until ctx ends.
func (g *Guard) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = g.ring.Close() })
	defer stop()
	var r ringbuf.Record
	for {
		if err := g.ring.ReadInto(&r); errors.Is(err, ringbuf.ErrClosed) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read the attempts: %w", err)
		}
		a, err := decodeAttempt(r.RawSample)
		if err != nil {
			return err
		}
		if a.Hook == HookCgroupMove {
			g.bringHome(&a)
		}
		g.cfg.Emit(a)
	}
}

// Leave lets go of the guard and leaves it in force, for the next agent.
func (g *Guard) Leave() error {
	var errs []error
	if g.ring != nil {
		errs = append(errs, g.ring.Close())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for pid, home := range g.homes {
		errs = append(errs, home.Close())
		delete(g.homes, pid)
	}
	if g.kernel != nil {
		errs = append(errs, g.kernel.Close())
		g.kernel, g.control = nil, nil
	}
	return errors.Join(errs...)
}

// Close ends the guard: nothing is protected any more, and nothing of it is left in the kernel.
func (g *Guard) Close() error {
	// Pins first: while they are there the programs are in force, and only this process may remove them.
	return errors.Join(bpffs.Remove(g.cfg.Pins), g.Leave())
}
