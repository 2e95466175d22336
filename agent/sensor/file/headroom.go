package file

import (
	"sync"

	"golang.org/x/sys/unix"
)

// headroom keeps descriptors free for the questions to come. When the kernel cannot give us a descriptor for an event it
// refuses the opener and says EMFILE, or nothing at all in the middle of a batch: running out must be prevented, not handled.
//
// Descriptor numbers are given lowest first, so the number of the newest one says how full the table is: no system call is
// needed to notice. Ballast, descriptors held for nothing, is let go when it is noticed too late.
type headroom struct {
	limit   int // RLIMIT_NOFILE, at most maxFiles
	reserve int // numbers kept free at the top

	mu      sync.Mutex // of the ballast; the reader only tries it
	ballast []int
}

// ballastSize is how many descriptors are held in reserve: twice what one read can bring.
const ballastSize = 2 * readBatch

// maxFiles bounds the numbers that are used: the kernel's table grows with the highest.
const maxFiles = 1 << 15

func newHeadroom() (*headroom, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return nil, err
	}
	limit := int(min(r.Cur, maxFiles))
	return &headroom{limit: limit, reserve: max(ballastSize, limit/16)}, nil
}

// low reports whether fd, the newest descriptor, leaves too few.
func (h *headroom) low(fd int) bool { return fd >= h.limit-h.reserve }

// questions returns how many questions may be in flight: half of the table at most.
func (h *headroom) questions(want int) int { return max(1, min(want, h.limit/2-ballastSize)) }

// hold takes the ballast, as far as there is room. src is any descriptor.
func (h *headroom) hold(src int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.ballast) < ballastSize {
		fd, err := unix.FcntlInt(uintptr(src), unix.F_DUPFD_CLOEXEC, h.limit-ballastSize)
		if err != nil {
			return
		}
		h.ballast = append(h.ballast, fd)
	}
}

// check lets the ballast go when the table is nearly full and takes it again when it is not. It reports whether it is low.
func (h *headroom) check(src int) bool {
	fd, err := unix.FcntlInt(uintptr(src), unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		sysClose(fd)
	}
	if err != nil || h.low(fd) {
		h.relieve()
		return true
	}
	h.hold(src)
	return false
}

// relieve lets the ballast go. It never waits: whoever holds the lock is handling the ballast already.
func (h *headroom) relieve() {
	if !h.mu.TryLock() {
		return
	}
	defer h.mu.Unlock()
	for _, fd := range h.ballast {
		sysClose(fd)
	}
	h.ballast = h.ballast[:0]
}
