package process

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"structs"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ledgerFormat changes when ledgerPage, or struct counts in process.bpf.c, does: a ledger of another format is not read.
const ledgerFormat = 1

// recordFormat changes when older user mode can no longer read the records; a longer record is not a change.
const recordFormat = 1

const ledgerMagic = 0x70_72_6f_63_6c_65_64_67 // "procledg"

// ledgerPage is what the readers of one generation of programs know and their successor must. It lies in a map that is
// pinned beside the programs, so a reader that is killed leaves it as it is, between any two stores.
type ledgerPage struct {
	_       structs.HostLayout
	magic   uint64
	format  uint64
	records uint64 // recordFormat of the programs
	boot    [2]uint64
	created uint64 // when, which also names the generation

	// Where the programs' variables are in their map.
	wantedAt, countsAt uint64

	// When this generation became the one that is read; 0: it is only prepared.
	authority uint64

	// The position behind the record that was given to Emit last. If it is not where the ring is read, Emit may or may not
	// have had the record in between.
	begun uint64
	// What was dealt with up to a position of the ring. Written in turn: the one whose position is the ring's is whole.
	taken [2]taken
	// The kernel's losses that a reader has reported.
	known losses

	// The generation that this one replaces, where its ring was read when both began to send, and from when to when they did.
	from, fromAt           uint64
	overlapFrom, overlapTo uint64
	fromLost               losses // the replaced programs' until then: what they lose later the new ones have
}

// taken counts records by kind.
type taken struct {
	_                           structs.HostLayout
	position                    uint64
	execs, forks, exits, others uint64
}

func (t taken) sum() uint64 { return t.execs + t.forks + t.exits + t.others }

// losses counts the records that the kernel could not send, by cause.
type losses struct {
	_                                       structs.HostLayout
	execs, forks, exits, scratch, recursion uint64
}

func (l losses) sum() uint64 { return l.execs + l.forks + l.exits + l.scratch + l.recursion }

func (l losses) minus(m losses) losses {
	return losses{
		execs: l.execs - m.execs, forks: l.forks - m.forks, exits: l.exits - m.exits,
		scratch: l.scratch - m.scratch, recursion: l.recursion - m.recursion,
	}
}

// ledger is a ledgerPage in the memory of a map, or in this process's own where nothing is pinned. It belongs to the
// goroutine that empties the ring.
type ledger struct {
	*ledgerPage
	table  *ebpf.Map
	memory []byte
	turn   int // the slot of taken that is whole
}

var errLedger = errors.New("not a ledger of this boot that this version reads")

func ledgerSpec() *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name: "ledger", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(unsafe.Sizeof(ledgerPage{})), MaxEntries: 1,
		Flags: unix.BPF_F_MMAPABLE,
	}
}

// newLedger makes an empty ledger in a map that can be pinned.
func newLedger(created uint64) (*ledger, error) {
	table, err := ebpf.NewMap(ledgerSpec())
	if err != nil {
		return nil, fmt.Errorf("make the reader's ledger: %w", err)
	}
	l, err := mapLedger(table)
	if err != nil {
		return nil, err
	}
	l.magic, l.format, l.records, l.boot, l.created = ledgerMagic, ledgerFormat, recordFormat, bootID(), created
	return l, nil
}

// ownLedger is a ledger that nobody else will read.
func ownLedger() *ledger { return &ledger{ledgerPage: new(ledgerPage)} }

// mapLedger makes a ledger's memory this process's. It closes table on error.
func mapLedger(table *ebpf.Map) (*ledger, error) {
	if err := ledgerSpec().Compatible(table); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", errLedger, err), table.Close())
	}
	memory, err := unix.Mmap(table.FD(), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map the reader's ledger: %w", err), table.Close())
	}
	return &ledger{ledgerPage: (*ledgerPage)(unsafe.Pointer(&memory[0])), table: table, memory: memory}, nil
}

// valid says whether the ledger is one that this version wrote, in this boot.
func (l *ledger) valid() error {
	if l.magic != ledgerMagic || l.format != ledgerFormat || l.boot != bootID() || l.created == 0 {
		return errLedger
	}
	return nil
}

func (l *ledger) close() error {
	if l.memory == nil {
		return nil
	}
	return errors.Join(unix.Munmap(l.memory), l.table.Close())
}

// resume finds what was dealt with up to a position of the ring; false if no reader of ours stopped there.
func (l *ledger) resume(position uint64) (taken, bool) {
	for i := range l.taken {
		if t := l.taken[i]; t.position == position {
			l.turn = i
			return t, true
		}
	}
	// Go on from the newest.
	if l.taken[1].sum() > l.taken[0].sum() {
		l.turn = 1
	}
	return l.taken[l.turn], false
}

// begin says that the record before a position is given to Emit.
func (l *ledger) begin(behind uint64) { atomic.StoreUint64(&l.begun, behind) }

// done says that the record before a position is dealt with. The ring's own position must be moved after it.
func (l *ledger) done(kind uint16, behind uint64) {
	t := l.taken[l.turn]
	switch kind {
	case recordExec:
		t.execs++
	case recordFork:
		t.forks++
	case recordExit:
		t.exits++
	default:
		t.others++
	}
	l.turn ^= 1
	into := &l.taken[l.turn]
	into.execs, into.forks, into.exits, into.others = t.execs, t.forks, t.exits, t.others
	atomic.StoreUint64(&into.position, behind)
}

// bootID returns the kernel's random name of this boot.
func bootID() (id [2]uint64) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id
	}
	digits := strings.ReplaceAll(strings.TrimSpace(string(text)), "-", "")
	if len(digits) != 32 {
		return id
	}
	_, _ = fmt.Sscanf(digits[:16], "%x", &id[0])
	_, _ = fmt.Sscanf(digits[16:], "%x", &id[1])
	return id
}
