// Package link is the agent's end of a product's socket: it turns events and questions into frames and frames into calls
// of a Handler. It keeps no list of questions, decides nothing and knows no product's name.
//
// Invariants: nothing here waits for a product except Run; a frame is delivered whole or refused with event.ErrFull; no
// descriptor that a product sends is ever installed in the agent.
package link

import (
	"errors"
	"fmt"
	"sync"

	productv1 "bailey/api/product/v1"
	"bailey/api/product/v1/wire"

	"bailey/agent/event"
)

// DefaultFaultLimit is how many faults a product may commit before Run gives up on it.
const DefaultFaultLimit = 3

// DefaultSendBuffer is the room, in bytes, for frames that the product has not read. The kernel doubles it and counts its
// own overhead, so that about a thousand questions fit.
const DefaultSendBuffer = 512 << 10

// The errors that callers branch on, beside event.ErrFull.
var (
	ErrFaults   = errors.New("the product broke the protocol too often")
	ErrClosed   = errors.New("the product closed its socket")
	ErrTooLarge = errors.New("payload does not fit a frame of 64 KiB")
)

// Options of a Conn. The zero value is usable.
type Options struct {
	Stream     bool            // the socket is expected to be a byte stream, else seqpacket; New checks
	FaultLimit int             // default DefaultFaultLimit
	SendBuffer int             // bytes; default DefaultSendBuffer
	OnFault    func(err error) // told of every fault, on Run's thread; must not block; may be nil
	// OnUnsupported is told of a frame that the product does not know, on Run's thread; must not block; may be nil.
	OnUnsupported func(productv1.FrameKind)
}

// Conn is one product's socket. All Send methods are safe for concurrent use and never block.
type Conn struct {
	sock *wire.Socket
	o    Options

	packing sync.Mutex
	pack    []byte // a datagram of notify frames in the making

	faultMu   sync.Mutex
	faults    int
	lastFault error
}

// New takes over fd, the agent's end of the socketpair.
func New(fd int, o Options) (*Conn, error) {
	if o.FaultLimit == 0 {
		o.FaultLimit = DefaultFaultLimit
	}
	if o.SendBuffer == 0 {
		o.SendBuffer = DefaultSendBuffer
	}
	sock, err := wire.NewSocket(fd)
	if err != nil {
		return nil, fmt.Errorf("open a product's socket: %w", err)
	}
	if sock.Stream() != o.Stream {
		return nil, fmt.Errorf("open a product's socket: stream is %t, expected %t", sock.Stream(), o.Stream)
	}
	if err := sock.SetSendBuffer(o.SendBuffer); err != nil {
		return nil, fmt.Errorf("open a product's socket: %w", err)
	}
	return &Conn{sock: sock, o: o, pack: make([]byte, 0, productv1.MaxFrame)}, nil
}

// Close ends the conversation; Run returns. A second Close does nothing.
func (c *Conn) Close() error { return c.sock.Close() }

// Release gives the socket up without telling the product, for another agent that has it too; Run returns, and what it did
// not read stays in the socket. A stream is closed instead.
func (c *Conn) Release() error { return c.sock.Release() }

// Faults returns how many faults the product has committed and the newest.
func (c *Conn) Faults() (n int, last error) {
	c.faultMu.Lock()
	defer c.faultMu.Unlock()
	return c.faults, c.lastFault
}

// sendError translates wire's errors to the agent's words.
func sendError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, wire.ErrFull):
		return event.ErrFull
	case errors.Is(err, wire.ErrClosed):
		return ErrClosed
	case errors.Is(err, wire.ErrTooLarge):
		return ErrTooLarge
	}
	return err
}
