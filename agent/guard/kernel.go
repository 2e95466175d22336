package guard

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"

	"bailey/internal/bpflsm"
)

// The maps by their names in the object. Go looks into these; the rest is only pinned.
const (
	mapAttempts = "attempts"
	mapRoots    = "roots"
	mapObjects  = "objects"
	mapTallies  = "tallies"
)

// needed are the programs without which there is no guard: who is trusted could not be known, or everything could be undone.
var needed = []string{"executed", "forked", "freed", "file_open", "task_kill", "inode_unlink", "sb_umount", "bpf_map_open"}

var variants = bpflsm.Variants{
	"inode_setattr": 2, "inode_setattr_mapped": 3, "inode_set_acl": 0, "inode_remove_acl": 0, "file_ioctl_compat": 0,
}

func newBlueprint() (*bpflsm.Blueprint, error) {
	spec, err := loadGuard()
	if err != nil {
		return nil, fmt.Errorf("read the BPF object: %w", err)
	}
	b, err := bpflsm.Fit(spec, _GuardBytes, variants)
	if err != nil {
		return nil, err
	}
	for name, hook := range b.Missing {
		if slices.Contains(needed, name) {
			return nil, fmt.Errorf("the kernel has no hook %s: %w", hook, ebpf.ErrNotSupported)
		}
	}
	return b, nil
}

// load loads and attaches the programs, not locked.
func load(b *bpflsm.Blueprint) (*bpflsm.Parts, error) {
	k, err := b.Load()
	if err != nil {
		return nil, err
	}
	if err := k.AttachAll(); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// registerMaps tells the programs which maps are theirs, so that nobody else gets them to write.
func (g *Guard) registerMaps() error {
	for name, m := range g.kernel.Maps {
		if err := g.registerMap(m); err != nil {
			return fmt.Errorf("protect the map %s: %w", name, err)
		}
	}
	return nil
}

func (g *Guard) registerMap(m *ebpf.Map) error {
	info, err := m.Info()
	if err != nil {
		return fmt.Errorf("ask the kernel about a map: %w", err)
	}
	if id, ok := info.ID(); ok {
		return g.kernel.Maps[mapObjects].Put(uint32(id), uint32(1))
	}
	return nil
}

// initPIDNamespace is the inode of the machine's first pid namespace (PROC_PID_INIT_INO in linux/proc_ns.h).
const initPIDNamespace = "pid:[4026531836]"

// ErrUnsupported says that this kernel, or this place on it, cannot have a guard.
var ErrUnsupported = errors.New("no guard is possible here")

// ErrNotTrusted says that a locked guard does not trust the calling process.
var ErrNotTrusted = errors.New("the guard in force does not trust this process")

func supported() error {
	if ns, err := os.Readlink("/proc/self/ns/pid"); err != nil || ns != initPIDNamespace {
		return fmt.Errorf("%w: it needs the machine's own process ids, not a container's (%s)", ErrUnsupported, ns)
	}
	return nil
}

// Remedy says what an operator can do about an error of Start.
func Remedy(err error) string {
	if errors.Is(err, ErrNotTrusted) {
		return "let the service manager start the agent, or unlock the guard first"
	}
	return bpflsm.Remedy(err)
}
