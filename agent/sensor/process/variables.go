package process

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

var errVariables = errors.New("not the variables of the BPF programs")

// variables are those of the BPF programs that user mode reads and sets, in memory shared with them. Safe for concurrent
// use, but not with close.
type variables struct {
	memory []byte
	counts *kernelCounts
	wanted *uint64
	quiet  *uint64 // nil for programs that are only emptied
}

// mapVariables maps the programs' variables, which lie at the offsets of layout.
func mapVariables(table *ebpf.Map, wantedAt, countsAt, quietAt uint64) (*variables, error) {
	size := uint64(table.ValueSize())
	for _, v := range []struct{ at, size uint64 }{{wantedAt, 8}, {countsAt, uint64(unsafe.Sizeof(kernelCounts{}))}, {quietAt, 8}} {
		if v.at%8 != 0 || v.at > size || size-v.at < v.size {
			return nil, errVariables
		}
	}
	page := uint64(os.Getpagesize())
	memory, err := unix.Mmap(table.FD(), 0, int((size+page-1)&^(page-1)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the variables of the BPF programs: %w", err)
	}
	return &variables{
		memory: memory,
		wanted: (*uint64)(unsafe.Pointer(&memory[wantedAt])),
		counts: (*kernelCounts)(unsafe.Pointer(&memory[countsAt])),
		quiet:  (*uint64)(unsafe.Pointer(&memory[quietAt])),
	}, nil
}

// at returns the variable at an offset that mapVariables has seen to lie inside, or that the schema vouches for.
func (v *variables) at(offset uint64) *uint64 { return (*uint64)(unsafe.Pointer(&v.memory[offset])) }

// wakeAfter has the programs wake the reader at most once in that many nanoseconds, or for each record.
func (v *variables) wakeAfter(interval uint64) { atomic.StoreUint64(v.quiet, interval) }

func (v *variables) close() error { return unix.Munmap(v.memory) }

// want has the programs send records, or not. A program that runs meanwhile goes by what it saw first.
func (v *variables) want(wanted bool) {
	var value uint64
	if wanted {
		value = 1
	}
	atomic.StoreUint64(v.wanted, value)
}

func (v *variables) wants() bool { return atomic.LoadUint64(v.wanted) != 0 }

// totals returns the kernel's counters. They go on while they are read.
func (v *variables) totals() kernelCounts {
	return kernelCounts{
		Execs: atomic.LoadUint64(&v.counts.Execs), Forks: atomic.LoadUint64(&v.counts.Forks),
		Exits: atomic.LoadUint64(&v.counts.Exits), Unwanted: atomic.LoadUint64(&v.counts.Unwanted),
		Outside:   atomic.LoadUint64(&v.counts.Outside),
		LostExecs: atomic.LoadUint64(&v.counts.LostExecs), LostForks: atomic.LoadUint64(&v.counts.LostForks),
		LostExits: atomic.LoadUint64(&v.counts.LostExits), LostScratch: atomic.LoadUint64(&v.counts.LostScratch),
		ArgvUnread: atomic.LoadUint64(&v.counts.ArgvUnread),
	}
}
