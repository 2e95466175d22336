package rules

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"bailey/internal/bpflsm"
)

// The maps by their names in the object.
const (
	mapPlaces   = "places"
	mapDevices  = "devices"
	mapRules    = "rules"
	mapHits     = "hits"
	mapProducts = "products"
	mapNotes    = "notes"
	mapRefusals = "refusals"
)

// What state.h has too.
const (
	byPlace       = 1
	byExecutable  = 2
	byCgroup      = 3
	byDestination = 4
	byAction      = 5

	flagOwn = 1

	maxLevels   = 16
	maxRules    = 4096
	maxProducts = 256
	cellSize    = 32
	maxPrefixes = 32
)

// learner is the program that is attached only while a file is learned.
const learner = "learn"

// hooks are the programs that each action needs. Of variants, a kernel has one.
var hooks = map[Action][]string{
	Exec:         {"exec"},
	MemfdExec:    {"exec"},
	OpenWrite:    {"open_write", "create", "link", "truncate", "truncate_mapped"},
	UnlinkRename: {"unlink", "rmdir", "rename"},
	Connect:      {"connect", "send"},
	ModuleLoad:   {"read_module", "load_module"},
	Ptrace:       {"ptrace"},
	MprotectExec: {"map_file", "protect"},
}

var variants = bpflsm.Variants{"truncate": 2, "truncate_mapped": 3}

// ErrUnsupported says that this kernel cannot enforce rules.
var ErrUnsupported = errors.New("the kernel cannot enforce rules")

func newBlueprint() (*bpflsm.Blueprint, error) {
	spec, err := loadKernel()
	if err != nil {
		return nil, fmt.Errorf("read the BPF object: %w", err)
	}
	return bpflsm.Fit(spec, _KernelBytes, variants)
}

// lacks says why this kernel cannot enforce an action; nil if it can.
func lacks(b *bpflsm.Blueprint, a Action) error {
	for _, name := range hooks[a] {
		if _, missing := b.Missing[name]; missing {
			return fmt.Errorf("%w: it has no hook for %s (%s)", ErrUnsupported, a, name)
		}
	}
	return nil
}

// kernel is the rules' part inside the kernel.
type kernel struct {
	*bpflsm.Parts
	print   *bpflsm.Blueprint
	control *kernelSettings
	dir     string // of its pins; empty: there are none
	scratch string // where hooks are tried
	log     *slog.Logger
}

// load loads the programs and attaches none.
func load(b *bpflsm.Blueprint) (*kernel, error) {
	parts, err := b.Load()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return newKernel(parts, b)
}

// newKernel takes parts over.
func newKernel(parts *bpflsm.Parts, b *bpflsm.Blueprint) (*kernel, error) {
	control, err := bpflsm.Share[kernelSettings](parts, b, "control")
	if err != nil {
		return nil, errors.Join(err, parts.Close())
	}
	return &kernel{Parts: parts, print: b, control: control, log: slog.New(slog.DiscardHandler)}, nil
}

// attach attaches the programs named, of those that this kernel has, and finds out whether it calls them.
func (k *kernel) attach(wanted map[string]bool) error {
	var added []string
	for name := range wanted {
		if k.Programs[name] == nil || k.Links[name] != nil {
			continue
		}
		if err := k.Attach(name); err != nil {
			return fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		added = append(added, name)
		if k.dir == "" {
			continue
		}
		l := k.Links[name]
		if err := l.Pin(k.dir + "/" + bpflsm.LinkPin(name)); err != nil {
			delete(k.Links, name)
			return errors.Join(fmt.Errorf("pin the link of %s: %w", name, err), l.Close())
		}
	}
	if len(added) == 0 {
		return nil
	}
	return k.try(added)
}

// try finds out whether the kernel calls the programs named, as far as something harmless can call them. No rule needs them yet.
func (k *kernel) try(names []string) error {
	trial, err := k.print.Try(k.Parts, names, k.scratch)
	if err != nil {
		k.log.Warn("it is not known whether the kernel calls every hook that a rule needs", "err", err)
	}
	if len(trial.Silent) > 0 {
		return fmt.Errorf("%w: %w: %s", ErrUnsupported, bpflsm.ErrSilent, strings.Join(trial.Silent, ", "))
	}
	return nil
}

// detach detaches all programs but those named.
func (k *kernel) detach(wanted map[string]bool) error {
	var errs []error
	for name, l := range k.Links {
		if wanted[name] {
			continue
		}
		if k.dir != "" {
			errs = append(errs, l.Unpin())
		}
		errs = append(errs, l.Close())
		delete(k.Links, name)
	}
	return errors.Join(errs...)
}

// learnedFile is how the kernel knows a file.
type learnedFile struct {
	ino             uint64
	dev, generation uint32
}

func (l learnedFile) key(kind uint32) kernelKey {
	return kernelKey{A: l.ino, B: l.at(), Kind: kind}
}

func (l learnedFile) at() uint64 { return uint64(l.dev)<<32 | uint64(l.generation) }

// learn has the kernel say how it knows the file that open opens on this very thread. It finds out whether the kernel calls programs
// at all. The thread must be locked.
func (k *kernel) learn(open func() error) (learnedFile, error) {
	l, err := link.AttachLSM(link.LSMOptions{Program: k.Programs[learner]})
	if err != nil {
		return learnedFile{}, fmt.Errorf("%w: attach %s: %w", ErrUnsupported, learner, err)
	}
	defer l.Close() //nolint:errcheck // it is gone with its descriptor
	c := k.control
	before := atomic.LoadUint32(&c.Learned)
	atomic.StoreUint32(&c.LearnThread, uint32(unix.Gettid()))
	err = open()
	atomic.StoreUint32(&c.LearnThread, 0)
	if err != nil {
		return learnedFile{}, err
	}
	if atomic.LoadUint32(&c.Learned) == before {
		return learnedFile{}, fmt.Errorf("%w: %w", ErrUnsupported, bpflsm.NotCalled("file_open"))
	}
	return learnedFile{
		ino: atomic.LoadUint64(&c.LearnedIno), dev: atomic.LoadUint32(&c.LearnedDev), generation: atomic.LoadUint32(&c.LearnedGeneration),
	}, nil
}
