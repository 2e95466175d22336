// Package wire moves frames of the product protocol over a unix socket, SOCK_SEQPACKET or SOCK_STREAM, with at most one
// descriptor a frame. The agent's link and the Go SDK share it so that both ends cut frames by the same code. It knows
// nothing of what the frames mean, and it never uses Go's poller: reads block a thread of their own, because the poller
// and the hand-off between goroutines cost more than the socket does.
//
// Invariant: a frame is sent whole or not at all. Where a stream takes only a part, the rest is kept and goes out before
// anything else does.
package wire

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	productv1 "bailey/api/product/v1"
	"bailey/internal/ownthread"

	"golang.org/x/sys/unix"
)

// Mode says what a send does when the socket is full.
type Mode int

// The modes.
const (
	Block Mode = 0                 // wait until the peer has read
	Try   Mode = unix.MSG_DONTWAIT // ErrFull
)

// The errors that callers branch on. They are values without context because the sending path must not allocate.
var (
	ErrFull     = errors.New("the socket is full")
	ErrClosed   = errors.New("the peer closed the socket")
	ErrTooLarge = errors.New("frame is larger than 64 KiB")
	ErrReleased = errors.New("the socket was released")
)

// Socket is one end of a product's socket. Sends are safe for concurrent use; one Reader may read at the same time.
type Socket struct {
	fd     int
	stream bool

	released atomic.Bool   // the Reader ends before its next datagram
	left     chan struct{} // closed when the last user has left a released socket

	mu      sync.Mutex // held for one system call (Try) or until the frame is out (Block)
	closed  bool
	users   int    // readers and the flusher; the last one closes fd after Close
	pending []byte // rest of a frame that a stream took only in part
	flusher bool
	send    sender
}

// sender is the memory of one sendmsg, kept so that sending allocates nothing.
type sender struct {
	msg     unix.Msghdr
	iov     [2]unix.Iovec
	header  [productv1.HeaderSize]byte
	control [4]uint64 // one cmsghdr with one descriptor: 24 bytes, aligned
}

// NewSocket takes over fd, a connected unix socket, whose type it asks the kernel for.
func NewSocket(fd int) (*Socket, error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nil, fmt.Errorf("ask what descriptor %d is: %w", fd, err)
	}
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, fmt.Errorf("ask what descriptor %d is: %w", fd, err)
	}
	if domain != unix.AF_UNIX || (typ != unix.SOCK_SEQPACKET && typ != unix.SOCK_STREAM) {
		return nil, fmt.Errorf("descriptor %d is a socket of family %d and type %d, not a unix seqpacket or stream socket", fd, domain, typ)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		return nil, fmt.Errorf("make descriptor %d blocking: %w", fd, err)
	}
	// Whoever had the socket before and released it left a timeout on it.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{}); err != nil {
		return nil, fmt.Errorf("make descriptor %d wait: %w", fd, err)
	}
	unix.CloseOnExec(fd)
	return &Socket{fd: fd, stream: typ == unix.SOCK_STREAM, left: make(chan struct{})}, nil
}

// Stream reports whether the socket is a byte stream.
func (s *Socket) Stream() bool { return s.stream }

// Send sends one frame; h.Length is filled in. fd is passed with the frame's first byte unless it is negative.
func (s *Socket) Send(h *productv1.Header, payload []byte, fd int, mode Mode) error {
	if len(payload) > productv1.MaxFrame-productv1.HeaderSize {
		return ErrTooLarge
	}
	h.Length = uint32(productv1.HeaderSize + len(payload))
	s.mu.Lock()
	defer s.mu.Unlock()
	h.Put(s.send.header[:])
	return s.sendLocked(s.send.header[:], payload, fd, mode)
}

// SendPacked sends b, whole frames one behind the other, as one datagram.
func (s *Socket) SendPacked(b []byte, mode Mode) error {
	if len(b) == 0 {
		return nil
	}
	if len(b) > productv1.MaxFrame {
		return ErrTooLarge
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sendLocked(b, nil, -1, mode)
}

func (s *Socket) sendLocked(head, tail []byte, fd int, mode Mode) error {
	if s.closed {
		return ErrClosed
	}
	if len(s.pending) > 0 {
		if err := s.flushLocked(mode); err != nil {
			return err
		}
	}
	n, err := s.sendmsg(head, tail, fd, mode)
	if err != nil || n == len(head)+len(tail) {
		return err
	}
	if n < len(head) {
		s.pending = append(s.pending, head[n:]...)
		n = len(head)
	}
	s.pending = append(s.pending, tail[n-len(head):]...)
	if mode == Block {
		return s.flushLocked(mode)
	}
	s.startFlusherLocked()
	return nil
}

// flushLocked sends what is pending and returns ErrFull if some of it remains.
func (s *Socket) flushLocked(mode Mode) error {
	for len(s.pending) > 0 {
		n, err := s.sendmsg(s.pending, nil, -1, mode)
		if err != nil {
			return err
		}
		s.pending = s.pending[:copy(s.pending, s.pending[n:])]
	}
	return nil
}

// startFlusherLocked starts a goroutine that lives until nothing is pending: without it a half-sent frame would wait for
// the next frame.
func (s *Socket) startFlusherLocked() {
	if s.flusher {
		return
	}
	s.flusher = true
	s.users++
	go func() {
		defer s.drop()
		for {
			fds := [1]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
			if _, err := unix.Poll(fds[:], -1); err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
			s.mu.Lock()
			err := ErrClosed
			if !s.closed {
				err = s.flushLocked(Try)
			}
			if !errors.Is(err, ErrFull) {
				s.flusher = false
				s.mu.Unlock()
				return
			}
			s.mu.Unlock()
		}
	}()
}

// sendmsg is one system call; it returns how many bytes went out, fewer than given only on a stream.
func (s *Socket) sendmsg(head, tail []byte, fd int, mode Mode) (int, error) {
	m := &s.send
	m.iov[0].Base = unsafe.SliceData(head)
	m.iov[0].SetLen(len(head))
	m.msg.Iov = &m.iov[0]
	m.msg.SetIovlen(1)
	if len(tail) > 0 {
		m.iov[1].Base = unsafe.SliceData(tail)
		m.iov[1].SetLen(len(tail))
		m.msg.SetIovlen(2)
	}
	m.msg.Control = nil
	m.msg.SetControllen(0)
	if fd >= 0 {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&m.control[0]))
		c.Level, c.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
		c.SetLen(unix.CmsgLen(4))
		*(*int32)(unsafe.Add(unsafe.Pointer(&m.control[0]), unix.CmsgLen(0))) = int32(fd)
		m.msg.Control = (*byte)(unsafe.Pointer(&m.control[0]))
		m.msg.SetControllen(unix.CmsgSpace(4))
	}
	for {
		n, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&m.msg)), uintptr(int(mode)|unix.MSG_NOSIGNAL))
		if errno == unix.EINTR {
			continue
		}
		m.iov[0].Base, m.iov[1].Base = nil, nil // the caller's memory is not ours to keep alive
		return int(n), sendError(errno)
	}
}

// sendError maps what sendmsg says. ETOOMANYREFS is a product that lets descriptors pile up unread, ENOBUFS and ENOMEM a
// kernel without memory: for the caller all of them mean "not now".
func sendError(errno unix.Errno) error {
	switch errno {
	case 0:
		return nil
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM, unix.ETOOMANYREFS:
		return ErrFull
	case unix.EPIPE, unix.ECONNRESET, unix.ENOTCONN:
		return ErrClosed
	case unix.EMSGSIZE:
		return ErrTooLarge
	}
	return fmt.Errorf("send to the peer: %w", errno)
}

// SetSendBuffer makes room for n bytes not yet read by the peer, beyond the system's limit where privilege allows.
func (s *Socket) SetSendBuffer(n int) error {
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, n) == nil {
		return nil
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, n); err != nil {
		return fmt.Errorf("set the send buffer to %d bytes: %w", n, err)
	}
	return nil
}

// CloseRead makes the Reader return io.EOF; sends still work.
func (s *Socket) CloseRead() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		_ = unix.Shutdown(s.fd, unix.SHUT_RD) // fails only when the peer is gone already
	}
}

// Close ends both directions and wakes a blocked Reader. The descriptor is closed when the last user has left. A second
// Close does nothing.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	_ = unix.Shutdown(s.fd, unix.SHUT_RDWR) // fails only when the peer is gone already
	if s.users > 0 {
		return nil
	}
	return s.closeLocked()
}

// Release gives the socket up without telling the peer, for whoever else has it: nothing is sent any more, the Reader
// finishes the datagram that it has, what it has not received stays in the socket, and the descriptor is closed when
// Release returns. Only for seqpacket: a stream may be within a frame, and is closed.
func (s *Socket) Release() error {
	if s.stream {
		return s.Close()
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.released.Store(true)
	if s.users == 0 {
		defer s.mu.Unlock()
		return s.closeLocked()
	}
	// A Reader that waits must begin anew to see the timeout.
	err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 1})
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("release the socket: %w", err)
	}
	for {
		if err := ownthread.Interrupt(); err != nil {
			return fmt.Errorf("release the socket: %w", err)
		}
		select {
		case <-s.left:
			return nil
		case <-time.After(time.Millisecond):
		}
	}
}

func (s *Socket) closeLocked() error {
	fd := s.fd
	s.fd = -1
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close the socket: %w", err)
	}
	return nil
}

// hold keeps the descriptor's number ours while a system call may block on it.
func (s *Socket) hold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.users++
	return true
}

func (s *Socket) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
	if s.closed && s.users == 0 && s.fd >= 0 {
		_ = s.closeLocked() // nobody is left who could be told
		close(s.left)
	}
}
