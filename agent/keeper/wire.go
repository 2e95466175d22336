package keeper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// The keeper and an agent speak over a SOCK_SEQPACKET pair in messages of one size, each with at most one descriptor.
// Numbers are never used for anything else: an agent is newer or older than the keeper that starts it.
type op uint32

const (
	// From the agent.
	opKeep    op = 1 // with a descriptor: keep a duplicate under name
	opDrop    op = 2 // forget name
	opReady   op = 3 // New is over: the agent will run, or, in standby, waits for opGo
	opEnding  op = 4 // the agent ends because it was told to: do not start it again
	opUpgrade op = 5 // with a descriptor: the program of the next agent
	opLeft    op = 6 // the agent handed over and exits

	// From the keeper.
	opInherit  op = 16 // with a descriptor: the last agent kept it under name
	opBegin    op = 17 // that was all; arg 1: stand by until opGo
	opGo       op = 18 // run now
	opHandOver op = 19 // end, and leave everything to a successor
	opFailed   op = 20 // the upgrade failed, for the reason that name tells
)

// MaxName is the length of the longest name of a kept descriptor, in bytes.
const MaxName = 63

const messageSize = 80

// message is one datagram. fd is -1 when it has none.
type message struct {
	op   op
	arg  uint64
	name string
	fd   int
}

// ErrName says that a name is empty or too long.
var ErrName = fmt.Errorf("a name has 1 to %d bytes", MaxName)

// appendMessage encodes m into buf, which must have room for messageSize bytes.
func (m *message) encode(buf *[messageSize]byte) {
	clear(buf[:])
	binary.LittleEndian.PutUint32(buf[0:], uint32(m.op))
	binary.LittleEndian.PutUint64(buf[8:], m.arg)
	copy(buf[16:16+MaxName], m.name)
}

// decode reads one datagram; a shorter or longer one is an error.
func (m *message) decode(b []byte) error {
	if len(b) != messageSize {
		return fmt.Errorf("message has %d bytes, not %d", len(b), messageSize)
	}
	m.op = op(binary.LittleEndian.Uint32(b[0:]))
	m.arg = binary.LittleEndian.Uint64(b[8:])
	name := b[16:]
	n := 0
	for n < len(name) && name[n] != 0 {
		n++
	}
	if n > MaxName {
		return fmt.Errorf("message's name has no end")
	}
	m.name = string(name[:n])
	return nil
}

// send writes one message; the descriptor stays the caller's.
func send(sock int, m message) error {
	var buf [messageSize]byte
	m.encode(&buf)
	var rights []byte
	if m.fd >= 0 {
		rights = unix.UnixRights(m.fd)
	}
	for {
		err := unix.Sendmsg(sock, buf[:], rights, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("send to the other side of the keeper's socket: %w", err)
		}
		return nil
	}
}

// receive reads one message; io.EOF when the other side is gone. The caller owns the descriptor.
func receive(sock int) (message, error) {
	var buf [messageSize + 1]byte
	oob := make([]byte, unix.CmsgSpace(4*4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(sock, buf[:], oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ECONNRESET) || err == nil && n == 0 {
			return message{fd: -1}, io.EOF
		}
		if err != nil {
			return message{fd: -1}, fmt.Errorf("receive from the other side of the keeper's socket: %w", err)
		}
		m := message{fd: -1}
		fds := rightsIn(oob[:oobn])
		if len(fds) > 0 {
			m.fd = fds[0]
			for _, fd := range fds[1:] {
				_ = unix.Close(fd)
			}
		}
		if err := m.decode(buf[:n]); err != nil {
			if m.fd >= 0 {
				_ = unix.Close(m.fd)
			}
			return message{fd: -1}, err
		}
		return m, nil
	}
}

func rightsIn(oob []byte) []int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var out []int
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
			out = append(out, fds...)
		}
	}
	return out
}
