package process

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// A cell is the kernel's 16 bits for one pid: two flags, then how often the pid was forked and has executed since. The
// numbers equal those in process.bpf.c.
const (
	cellPlatform = 1
	cellNeverAsk = 2
	cellFlags    = cellPlatform | cellNeverAsk
	cellCount    = 4 * 1024 * 1024
	cellBytes    = 2 * cellCount
)

// cells is the kernel's table of cells, mapped: a look is one load from memory. Safe for concurrent use, but not with
// close.
type cells struct {
	memory []byte
}

// mapCells maps the kernel's table, or, with a negative descriptor, makes an empty one that user mode keeps alone.
func mapCells(fd int) (*cells, error) {
	flags := unix.MAP_SHARED
	if fd < 0 {
		flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	}
	memory, err := unix.Mmap(fd, 0, cellBytes, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, fmt.Errorf("map the flags of all pids: %w", err)
	}
	return &cells{memory: memory}, nil
}

func (c *cells) close() error { return unix.Munmap(c.memory) }

// word returns the 32 bits that hold pid's cell and the cell's place in them; nil for a pid that no kernel gives.
func (c *cells) word(pid uint32) (*uint32, uint) {
	if pid == 0 || pid >= cellCount {
		return nil, 0
	}
	return (*uint32)(unsafe.Pointer(&c.memory[pid/2*4])), uint(pid%2) * 16
}

// get returns pid's cell.
func (c *cells) get(pid uint32) uint16 {
	word, shift := c.word(pid)
	if word == nil {
		return 0
	}
	return uint16(atomic.LoadUint32(word) >> shift)
}

// set adds flag to pid's cell if it is still the cell that was seen, flags aside, and reports whether it was.
func (c *cells) set(pid uint32, seen, flag uint16) bool {
	word, shift := c.word(pid)
	if word == nil {
		return false
	}
	for {
		// The neighbour's cell is in the same word: a change of either makes the swap fail.
		old := atomic.LoadUint32(word)
		cell := uint16(old >> shift)
		if cell&^cellFlags != seen&^cellFlags {
			return false
		}
		if atomic.CompareAndSwapUint32(word, old, old|uint32(flag)<<shift) {
			return true
		}
	}
}

// put replaces pid's cell: only for a table that the kernel does not keep.
func (c *cells) put(pid uint32, cell uint16) {
	word, shift := c.word(pid)
	if word == nil {
		return
	}
	for {
		old := atomic.LoadUint32(word)
		if atomic.CompareAndSwapUint32(word, old, old&^(0xffff<<shift)|uint32(cell)<<shift) {
			return
		}
	}
}

// mark adds flag to whatever program pid runs now.
func (c *cells) mark(pid uint32, flag uint16) {
	for pid != 0 && pid < cellCount && !c.set(pid, c.get(pid), flag) {
		continue // it executed between the two: look again
	}
}

// openCells maps a pinned table of cells.
func openCells(pin string) (*cells, error) {
	table, err := ebpf.LoadPinnedMap(pin, nil)
	if err != nil {
		return nil, fmt.Errorf("open the pinned flags of all pids: %w", err)
	}
	defer table.Close() //nolint:errcheck // the mapping stays
	if table.Type() != ebpf.Array || uint64(table.ValueSize())*uint64(table.MaxEntries()) != cellBytes {
		return nil, fmt.Errorf("open the pinned flags of all pids: they are %d times %d bytes of %s", table.MaxEntries(), table.ValueSize(), table.Type())
	}
	return mapCells(table.FD())
}

// copyFlag gives c the flag of each pid that has it in another table, unless its process forked or executed meanwhile.
func (c *cells) copyFlag(from *cells, flag uint16) {
	both := uint32(flag) | uint32(flag)<<16
	for pid := uint32(0); pid < cellCount; pid += 2 {
		word, _ := from.word(max(pid, 1))
		if atomic.LoadUint32(word)&both == 0 {
			continue
		}
		for _, p := range [2]uint32{pid, pid + 1} {
			seen := c.get(p)
			if from.get(p)&flag != 0 {
				c.set(p, seen, flag)
			}
		}
	}
}
