package process

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The layout of the kernel's ring buffer (include/uapi/linux/bpf.h, kernel/bpf/ringbuf.c).
const (
	ringHeaderSize = 8
	ringBusy       = 1 << 31
	ringDiscarded  = 1 << 30
)

var (
	errFlushed = errors.New("ring buffer was flushed")
	errRing    = errors.New("ring buffer is not what the kernel makes")
)

// ring reads the kernel's ring buffer from where the last reader stopped, whichever process that was. Unlike the library's
// reader it lets go of a record only when the caller says that it is dealt with: a reader that is killed leaves that record
// to the next. flush is safe for concurrent use, the rest belongs to one goroutine.
type ring struct {
	records
	consumerPage, producerPages []byte
	consumer, producer          *uint64 // positions, which only grow; in memory shared with the kernel

	epoll    int
	deadline time.Time // until when read waits; zero is for ever
	ready    bool      // there may be records
	ended    error     // what read returns behind the last of them

	mu   sync.Mutex // guards wake
	wake int        // an eventfd; -1 when closed
}

func newRing(fd int, size uint32) (r *ring, err error) {
	page := os.Getpagesize()
	r = &ring{epoll: -1, wake: -1}
	defer func() {
		if err != nil {
			_ = r.close()
		}
	}()
	if size == 0 || size&(size-1) != 0 {
		return nil, fmt.Errorf("%w: its size is %d", errRing, size)
	}
	if r.consumerPage, err = unix.Mmap(fd, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map the reader's page of the ring buffer: %w", err)
	}
	if r.producerPages, err = unix.Mmap(fd, int64(page), page+2*int(size), unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map the ring buffer: %w", err)
	}
	r.consumer = (*uint64)(unsafe.Pointer(&r.consumerPage[0]))
	r.producer = (*uint64)(unsafe.Pointer(&r.producerPages[0]))
	r.records = records{twice: r.producerPages[page:]}
	if r.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make an epoll: %w", err)
	}
	for _, one := range []int{fd, r.wake} {
		if err = unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, one, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(one)}); err != nil {
			return nil, fmt.Errorf("wait for the ring buffer: %w", err)
		}
	}
	return r, nil
}

func (r *ring) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, memory := range [][]byte{r.consumerPage, r.producerPages} {
		if memory != nil {
			errs = append(errs, unix.Munmap(memory))
		}
	}
	for _, fd := range []int{r.wake, r.epoll} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	r.consumerPage, r.producerPages, r.wake, r.epoll = nil, nil, -1, -1
	return errors.Join(errs...)
}

// at returns how far reading has come; everything before it is dealt with.
func (r *ring) at() uint64 { return atomic.LoadUint64(r.consumer) }

// end returns how far the kernel has come.
func (r *ring) end() uint64 { return atomic.LoadUint64(r.producer) }

// commit says that everything before a position is dealt with: the kernel may write over it.
func (r *ring) commit(position uint64) { atomic.StoreUint64(r.consumer, position) }

// flush makes a read that waits return what there is and then errFlushed.
func (r *ring) flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wake < 0 {
		return os.ErrClosed
	}
	one := [8]byte{1}
	if _, err := unix.Write(r.wake, one[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("wake the reader of the ring buffer: %w", err)
	}
	return nil
}

// read returns the next record and the position behind it, which the caller commits when it has dealt with the record: the
// bytes are the ring's own. When there is none it waits; after the deadline (os.ErrDeadlineExceeded) or a flush
// (errFlushed) it says so once it has returned what there is, because not every record wakes it.
func (r *ring) read() (sample []byte, behind uint64, err error) {
	for {
		if !r.ready {
			if err := r.ended; err != nil {
				r.ended = nil
				return nil, 0, err
			}
			if err := r.wait(); errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, errFlushed) {
				r.ended = err
			} else if err != nil {
				return nil, 0, err
			}
			r.ready = true
		}
		sample, behind, err := r.first(r.end())
		if err != nil || sample != nil {
			return sample, behind, err
		}
		r.ready = false
	}
}

// first returns the first record that is not dealt with, nil if there is none before end.
func (r *ring) first(end uint64) (sample []byte, behind uint64, err error) {
	for tries := 0; ; tries++ {
		at := r.at()
		sample, behind, state, err := r.one(at, end)
		switch {
		case err != nil:
			return nil, 0, err
		case state == recordWhole:
			return sample, behind, nil
		case state == recordNone:
			return nil, 0, nil
		case state == recordDiscarded:
			r.commit(behind)
		case tries > 1000: // it is being written, by a processor that the machine took away
			time.Sleep(20 * time.Microsecond) //nolint:forbidigo // the kernel is waited for
		}
	}
}

// wait waits until the kernel says that there are records, for the deadline or for a flush.
func (r *ring) wait() error {
	var events [2]unix.EpollEvent
	for {
		timeout := -1
		if !r.deadline.IsZero() {
			timeout = int(max(0, time.Until(r.deadline).Milliseconds()))
		}
		n, err := unix.EpollWait(r.epoll, events[:], timeout)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("wait for the ring buffer: %w", err)
		case n == 0:
			return os.ErrDeadlineExceeded
		}
		for _, e := range events[:n] {
			if int(e.Fd) == r.wake {
				r.clear()
				return errFlushed
			}
		}
		return nil
	}
}

// pause waits for a flush alone, whatever is in the ring.
func (r *ring) pause(timeout time.Duration) {
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(r.wake), Events: unix.POLLIN}}, int(timeout.Milliseconds())); n > 0 && err == nil {
		r.clear()
	}
}

func (r *ring) clear() {
	var count [8]byte
	_, _ = unix.Read(r.wake, count[:]) // it does not block; whether there was something does not matter
}

// records are the bytes of a ring buffer, mapped twice so that no record is broken at the end.
type records struct {
	twice []byte
}

type recordState int

const (
	recordNone      recordState = iota // the end is reached
	recordBusy                         // it is being written
	recordDiscarded                    // there is nothing in it
	recordWhole
)

// one returns the record at a position, with the position behind it. It trusts no length.
func (r records) one(at, end uint64) (sample []byte, behind uint64, state recordState, err error) {
	size := uint64(len(r.twice) / 2)
	left := end - at
	switch {
	case left == 0:
		return nil, at, recordNone, nil
	case left > size || left < ringHeaderSize || at%ringHeaderSize != 0:
		return nil, 0, recordNone, fmt.Errorf("%w: it is read at %d and written at %d", errRing, at, end)
	}
	start := at & (size - 1)
	// Atomic: what the kernel wrote before it cleared the mark is there to be read.
	header := atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.twice[start])))
	if header&ringBusy != 0 {
		return nil, at, recordBusy, nil
	}
	length := uint64(header &^ (ringBusy | ringDiscarded))
	whole := ringHeaderSize + (length+7)&^7
	if whole > left {
		return nil, 0, recordNone, fmt.Errorf("%w: a record of %d bytes in %d", errRing, length, left)
	}
	if header&ringDiscarded != 0 {
		return nil, at + whole, recordDiscarded, nil
	}
	return r.twice[start+ringHeaderSize : start+ringHeaderSize+length : start+ringHeaderSize+length], at + whole, recordWhole, nil
}

// walk calls seen with every record from a position to another, or to the first that is being written, and deals with none.
func (r records) walk(at, end uint64, seen func(sample []byte)) error {
	for {
		sample, behind, state, err := r.one(at, end)
		if err != nil {
			return err
		}
		switch state {
		case recordNone, recordBusy:
			return nil
		case recordWhole:
			seen(sample)
		}
		at = behind
	}
}
