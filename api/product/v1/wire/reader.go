package wire

import (
	"errors"
	"fmt"
	"io"
	"unsafe"

	productv1 "bailey/api/product/v1"
	"bailey/internal/ownthread"

	"golang.org/x/sys/unix"
)

// The faults of a peer, beside productv1.ErrFrame.
var (
	ErrOversized  = errors.New("datagram is larger than 64 KiB")
	ErrDescriptor = errors.New("descriptor that nobody asked for")
)

// Fault is a peer's breach of the framing. Unless Fatal, reading may go on with the next datagram.
type Fault struct {
	Err   error
	Fatal bool // a stream whose frame boundaries are lost
}

func (f *Fault) Error() string { return f.Err.Error() }

// Unwrap returns the class of the fault.
func (f *Fault) Unwrap() error { return f.Err }

// Frame is one received frame. Payload is valid until the next call of Next. FD is -1 or a descriptor that the receiver
// must close.
type Frame struct {
	productv1.Header
	Payload []byte
	FD      int
}

// Reader reads frames from a Socket. Not safe for concurrent use. Its owner locks the goroutine to its thread.
type Reader struct {
	s      *Socket
	thread *ownthread.Thread
	take   bool // descriptors are wanted

	buf        []byte
	start, end int // the unread part of buf
	fds        []passed

	msg     unix.Msghdr
	iov     unix.Iovec
	control [8]uint64 // a cmsghdr with up to 12 descriptors, aligned; the kernel drops more. One is legal.
}

// passed is a descriptor and the offset in buf of the frame it came with.
type passed struct {
	at, fd int
}

// NewReader returns the reader of s. With descriptors false no descriptor is ever installed in this process: the kernel
// drops them and Next reports ErrDescriptor. Close it when done.
func NewReader(s *Socket, descriptors bool) (*Reader, error) {
	if !s.hold() {
		return nil, ErrClosed
	}
	size := productv1.MaxFrame
	if s.stream {
		size *= 2 // an unfinished frame and a whole one behind it
	}
	return &Reader{s: s, thread: ownthread.Enter(), take: descriptors, buf: make([]byte, size)}, nil
}

// Close gives up the socket and closes descriptors that no frame claimed.
func (r *Reader) Close() {
	for _, p := range r.fds {
		_ = unix.Close(p.fd)
	}
	r.fds = nil
	r.thread.Leave()
	r.s.drop()
}

// Buffered reports whether Next can return without waiting for the peer.
func (r *Reader) Buffered() bool {
	return r.end > r.start && !(r.s.stream && incomplete(r.buf[r.start:r.end]))
}

// Next blocks for the next frame. It returns io.EOF when the peer is gone, ErrReleased when this end was given up, and a
// *Fault when the peer broke the framing.
func (r *Reader) Next() (f Frame, err error) {
	for {
		if r.end > r.start {
			f, ok, err := r.cut()
			if ok || err != nil {
				return f, err
			}
		}
		r.thread.Yield()
		if r.s.released.Load() {
			return Frame{FD: -1}, ErrReleased
		}
		if err := r.receive(); err != nil {
			return Frame{FD: -1}, err
		}
	}
}

// cut takes the first frame from the buffer; ok is false when a stream has not brought all of it yet.
func (r *Reader) cut() (f Frame, ok bool, err error) {
	f.FD = -1
	b := r.buf[r.start:r.end]
	if r.s.stream && incomplete(b) {
		return f, false, nil
	}
	h, payload, rest, err := productv1.Next(b)
	if err != nil {
		r.start = r.end
		r.closeFrom(0)
		return f, false, &Fault{Err: err, Fatal: r.s.stream}
	}
	f.Header, f.Payload = h, payload
	if len(r.fds) > 0 && r.fds[0].at == r.start {
		f.FD = r.fds[0].fd
		r.fds = append(r.fds[:0], r.fds[1:]...)
	}
	r.start = r.end - len(rest)
	return f, true, nil
}

// incomplete reports whether b may become a valid frame with more bytes.
func incomplete(b []byte) bool {
	if len(b) < productv1.HeaderSize {
		return true
	}
	n := frameLength(b)
	return n > len(b) && n <= productv1.MaxFrame
}

func frameLength(b []byte) int {
	return int(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24)
}

// receive is one blocking recvmsg into the buffer.
func (r *Reader) receive() error {
	r.compact()
	r.iov.Base = &r.buf[r.end]
	r.iov.SetLen(len(r.buf) - r.end)
	r.msg.Iov = &r.iov
	r.msg.SetIovlen(1)
	r.msg.Control = nil
	r.msg.SetControllen(0)
	if r.take {
		r.msg.Control = (*byte)(unsafe.Pointer(&r.control[0]))
		r.msg.SetControllen(len(r.control) * 8)
	}
	var n uintptr
	for {
		var errno unix.Errno
		n, _, errno = unix.Syscall(unix.SYS_RECVMSG, uintptr(r.s.fd), uintptr(unsafe.Pointer(&r.msg)), unix.MSG_CMSG_CLOEXEC)
		if errno == 0 {
			break
		}
		if errno == unix.ECONNRESET {
			return io.EOF // the peer closed with frames of ours unread
		}
		if errno == unix.EAGAIN && r.s.released.Load() {
			return ErrReleased
		}
		if errno != unix.EINTR {
			return fmt.Errorf("receive from the peer: %w", errno)
		}
	}
	first := r.end
	r.end += int(n)
	err := r.takeDescriptors(first)
	if n == 0 {
		return io.EOF
	}
	if r.msg.Flags&unix.MSG_TRUNC != 0 {
		r.start = r.end
		r.closeFrom(0)
		return &Fault{Err: ErrOversized}
	}
	return err
}

// compact moves the unfinished frame of a stream to the buffer's start.
func (r *Reader) compact() {
	moved := r.start
	copy(r.buf, r.buf[r.start:r.end])
	r.start, r.end = 0, r.end-moved
	for i := range r.fds {
		r.fds[i].at -= moved
	}
}

// takeDescriptors notes the descriptor that came with the bytes from first on. The kernel ends a stream's read behind the
// bytes that a descriptor was sent with, so it belongs to the last frame that starts in what was read.
func (r *Reader) takeDescriptors(first int) error {
	if !r.take {
		if r.msg.Flags&unix.MSG_CTRUNC != 0 {
			return &Fault{Err: ErrDescriptor}
		}
		return nil
	}
	known := len(r.fds)
	if int(r.msg.Controllen) >= unix.CmsgLen(4) {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&r.control[0]))
		if c.Level == unix.SOL_SOCKET && c.Type == unix.SCM_RIGHTS {
			at := r.lastFrameStart(first)
			for i := range (int(c.Len) - unix.CmsgLen(0)) / 4 {
				fd := *(*int32)(unsafe.Add(unsafe.Pointer(&r.control[0]), unix.CmsgLen(0)+4*i))
				r.fds = append(r.fds, passed{at: at, fd: int(fd)})
			}
		}
	}
	if len(r.fds) > known+1 || len(r.fds) > known && r.fds[known].at < first {
		r.closeFrom(known)
		return &Fault{Err: ErrDescriptor}
	}
	return nil
}

// lastFrameStart returns the offset of the last frame that starts at or behind first, or -1.
func (r *Reader) lastFrameStart(first int) int {
	if !r.s.stream {
		return first
	}
	at := -1
	for p := r.start; p < r.end; {
		if p >= first {
			at = p
		}
		b := r.buf[p:r.end]
		if len(b) < productv1.HeaderSize || frameLength(b) < productv1.HeaderSize {
			break
		}
		p += frameLength(b)
	}
	return at
}

func (r *Reader) closeFrom(i int) {
	for _, p := range r.fds[i:] {
		_ = unix.Close(p.fd)
	}
	r.fds = r.fds[:i]
}
