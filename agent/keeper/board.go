package keeper

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Board is the memory that keeper and agent share: the agent's heartbeat one way, what the keeper counted the other. It is
// made once and outlives every agent. Safe for concurrent use by both processes.
type Board struct {
	// Serving is 1 while the agent's readers take questions, 2 while it hands over to a successor. The agent sets it; the
	// keeper clears it when the agent ends.
	Serving *atomic.Uint32
	// Armed is 1 while marks that ask questions are set: nothing has to be watched without.
	Armed *atomic.Uint32
	// Turns is moved on by whoever reads questions in the agent, at every turn: it proves reading.
	Turns *atomic.Uint64
	// Beats is moved on by the goroutine that ends budgets, at every look at the deadlines, twice a second at least: it proves answering.
	Beats *atomic.Uint64
	// Unanswered is how many questions the agent has read and not answered.
	Unanswered *atomic.Int64
	// Highest is the highest descriptor number that a question had.
	Highest *atomic.Uint32
	// Answered is how many questions agents answered; one that an agent was killed at may be missing.
	Answered *atomic.Uint64

	// Bypassed is how many questions the keeper answered, exactly.
	Bypassed *atomic.Uint64
	// Released is how often groups were let go whose questions cannot be counted (stacked file systems).
	Released *atomic.Uint64
	// Bypasses is how many times the keeper took over; Bypassing is 1 while it does.
	Bypasses  *atomic.Uint64
	Bypassing *atomic.Uint32
	// Restarts is how many agents were started after the first, Kills how many the keeper had to end.
	Restarts, Kills *atomic.Uint64
	// LongestGap is the longest round of the keeper's answers, in nanoseconds.
	LongestGap *atomic.Uint64
	// Started is when the keeper started, in nanoseconds since boot.
	Started *atomic.Uint64

	file *os.File
	mem  []byte
}

// boardMagic names the layout below. Another layout is another number.
const boardMagic = 0x31_62_79_65_6c_69_61_62 // "baileyb1"

const boardSize = 4096

// NewBoard makes an empty board in memory that has no name.
func NewBoard() (*Board, error) {
	fd, err := unix.MemfdCreate("bailey-board", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make the keeper's board: %w", err)
	}
	f := os.NewFile(uintptr(fd), "board")
	if err := f.Truncate(boardSize); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("make the keeper's board: %w", err)
	}
	b, err := mapBoard(f)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	b.word64(0).Store(boardMagic)
	return b, nil
}

// OpenBoard maps the board behind a descriptor that the keeper handed on, and takes it over.
func OpenBoard(fd int) (*Board, error) {
	f := os.NewFile(uintptr(fd), "board")
	if f == nil {
		return nil, fmt.Errorf("map the keeper's board: descriptor %d is none", fd)
	}
	b, err := mapBoard(f)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	if m := b.word64(0).Load(); m != boardMagic {
		_ = b.Close()
		return nil, fmt.Errorf("map the keeper's board: its layout %#x is not this program's %#x: restart the service", m, uint64(boardMagic))
	}
	return b, nil
}

func mapBoard(f *os.File) (*Board, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, boardSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the keeper's board: %w", err)
	}
	b := &Board{file: f, mem: mem}
	// One cache line for each writer.
	b.Serving, b.Armed, b.Highest = b.word32(64), b.word32(68), b.word32(72)
	b.Turns = b.word64(128)
	b.Beats = b.word64(192)
	b.Unanswered = (*atomic.Int64)(unsafe.Pointer(b.word64(256)))
	b.Bypassed, b.Released, b.Bypasses = b.word64(320), b.word64(328), b.word64(336)
	b.Restarts, b.Kills, b.LongestGap, b.Started = b.word64(344), b.word64(352), b.word64(360), b.word64(368)
	b.Bypassing = b.word32(376)
	b.Answered = b.word64(384)
	return b, nil
}

func (b *Board) word64(at int) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&b.mem[at])) }
func (b *Board) word32(at int) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&b.mem[at])) }

// agentGone clears what an agent that ended can no longer say.
func (b *Board) agentGone() {
	b.Serving.Store(0)
	b.Unanswered.Store(0)
}

// Close unmaps the board. No field may be used afterwards.
func (b *Board) Close() error {
	if b.mem == nil {
		return nil
	}
	err := unix.Munmap(b.mem)
	b.mem = nil
	if cerr := b.file.Close(); err == nil {
		err = cerr
	}
	return err
}
