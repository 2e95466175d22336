package guard

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"bailey/internal/bpflsm"
	"bailey/internal/cgroup2"
)

// Roles of a process and flags of a place; state.h has the same values.
const (
	roleTrusted   = 1
	roleProtected = 2

	flagTree      = 1
	flagAncestor  = 2
	flagProgram   = 4
	flagShutdown  = 8
	flagTemporary = 16

	policyAllowTracing = 1
	policyAllowKexec   = 2
	policyObserve      = 4
)

// control is the variable of that name, shared with the programs.
type control struct{ *guardSettings }

func shareControl(k *bpflsm.Parts, b *bpflsm.Blueprint) (*control, error) {
	settings, err := bpflsm.Share[guardSettings](k, b, "control")
	return &control{settings}, err
}

func (c *control) lock() {
	atomic.StoreUint64(&c.UnlockedUntil, 0)
	atomic.StoreUint32(&c.Locked, 1)
}

func (c *control) unlock(until uint64) { atomic.StoreUint64(&c.UnlockedUntil, until) }

func (c *control) locked(now uint64) bool {
	until := atomic.LoadUint64(&c.UnlockedUntil)
	return atomic.LoadUint32(&c.Locked) == 1 && atomic.LoadUint32(&c.ShuttingDown) == 0 && now >= until
}

// describe stores what does not change while an agent lives.
func (c *control) describe(cfg Config) error {
	for pid, into := range map[string]*uint32{"self": &c.MountNs, strconv.FormatUint(uint64(cfg.Manager), 10): &c.ManagerNs} {
		var st unix.Stat_t
		if err := unix.Stat("/proc/"+pid+"/ns/mnt", &st); err != nil {
			return fmt.Errorf("ask for the mount namespace of %s: %w", pid, err)
		}
		atomic.StoreUint32(into, uint32(st.Ino))
	}
	if dev, err := kernelDev(cgroup2.Root); err == nil {
		atomic.StoreUint32(&c.CgroupDev, dev)
	}
	var policy uint32
	for bit, on := range map[uint32]bool{policyAllowTracing: cfg.AllowTracing, policyAllowKexec: cfg.AllowKexec, policyObserve: cfg.Observe} {
		if on {
			policy |= bit
		}
	}
	atomic.StoreUint32(&c.Policy, policy)
	atomic.StoreUint32(&c.Manager, cfg.Manager)
	if err := c.setUnit(cfg.Service); err != nil {
		return err
	}
	return c.setDisks(append(append([]string{filepath.Dir(cfg.Pins)}, cfg.Paths...), cfg.Programs...))
}

// setUnit stores the components of the service's cgroup, innermost first. While they change there is none.
func (c *control) setUnit(path string) error {
	var parts []string
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if part != "" {
			parts = append(parts, part)
		}
	}
	slices.Reverse(parts)
	if len(parts) > len(c.Unit) {
		return fmt.Errorf("the service's control group %s has more than %d components", path, len(c.Unit))
	}
	atomic.StoreUint32(&c.UnitDepth, 0)
	for i, part := range parts {
		if len(part) >= len(c.Unit[i]) {
			return fmt.Errorf("the service's control group %s has a component of more than %d bytes", path, len(c.Unit[i])-1)
		}
		clear(c.Unit[i][:])
		for j := range len(part) {
			c.Unit[i][j] = int8(part[j])
		}
	}
	atomic.StoreUint32(&c.UnitDepth, uint32(len(parts)))
	return nil
}

// setDisks stores the block devices below paths.
func (c *control) setDisks(paths []string) error {
	disks, err := disksBelow(paths)
	if err != nil {
		return err
	}
	if len(disks) > len(c.Disks) {
		return fmt.Errorf("%d block devices lie below protected files, %d can be protected", len(disks), len(c.Disks))
	}
	generics := genericsOf(disks)
	if len(generics) > len(c.Generics) {
		return fmt.Errorf("%d devices take commands for the disks below protected files, %d can be protected", len(generics), len(c.Generics))
	}
	bpflsm.Store(c.Disks[:], disks)
	bpflsm.Store(c.Generics[:], generics)
	return nil
}

// disks returns the block devices that setDisks stored.
func (c *control) disks() []uint32 {
	var out []uint32
	for i := range c.Disks {
		if d := atomic.LoadUint32(&c.Disks[i]); d != 0 {
			out = append(out, d)
		}
	}
	return out
}
