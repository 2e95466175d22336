package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Client is an agent's side of its keeper. Safe for concurrent use.
type Client struct {
	board   *Board
	sock    int
	standby bool

	mu     sync.Mutex
	kept   map[string]int // what the last agent left and nobody took
	failed chan error     // why an upgrade failed
	goOn   chan struct{}  // closed by opGo
	leave  chan struct{}  // closed by opHandOver
	orphan chan struct{}  // closed when the keeper is gone
}

// Connect takes over the descriptors that a keeper gave this process, and everything the last agent left.
func Connect() (*Client, error) {
	board, err := OpenBoard(BoardFD)
	if err != nil {
		return nil, err
	}
	unix.CloseOnExec(SocketFD)
	for fd := BoardFD; fd <= ReservedTo; fd++ {
		unix.CloseOnExec(fd)
	}
	c := &Client{board: board, sock: SocketFD, kept: make(map[string]int), failed: make(chan error, 1),
		goOn: make(chan struct{}), leave: make(chan struct{}), orphan: make(chan struct{})}
	for {
		m, err := receive(c.sock)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("hear from the keeper: %w", err), board.Close())
		}
		switch m.op {
		case opInherit:
			c.inherit(m)
		case opBegin:
			c.standby = m.arg == 1
			if !c.standby {
				close(c.goOn)
			}
			go c.listen()
			return c, nil
		}
	}
}

func (c *Client) inherit(m message) {
	if m.fd < 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.kept[m.name]; ok {
		_ = unix.Close(old)
	}
	c.kept[m.name] = m.fd
}

// listen hears the keeper until it is gone.
func (c *Client) listen() {
	for {
		m, err := receive(c.sock)
		if err != nil {
			close(c.orphan)
			return
		}
		switch m.op {
		case opInherit:
			c.inherit(m)
			continue
		case opGo:
			closeOnce(c.goOn)
		case opHandOver:
			closeOnce(c.leave)
		case opFailed:
			select {
			case c.failed <- errors.New(m.name):
			default:
			}
		}
		if m.fd >= 0 {
			_ = unix.Close(m.fd)
		}
	}
}

func closeOnce(ch chan struct{}) {
	select {
	case <-ch:
	default:
		close(ch)
	}
}

// Board is the memory that is shared with the keeper.
func (c *Client) Board() *Board { return c.board }

// PID is the keeper's process.
func (c *Client) PID() int { return os.Getppid() }

// Keep gives the keeper a duplicate of fd under name, in place of what it kept there.
func (c *Client) Keep(name string, fd int) error {
	if name == "" || len(name) > MaxName {
		return ErrName
	}
	return send(c.sock, message{op: opKeep, name: name, fd: fd})
}

// Drop makes the keeper let go what it keeps under name.
func (c *Client) Drop(name string) error {
	return send(c.sock, message{op: opDrop, name: name, fd: -1})
}

// Take returns what the last agent left under name, once; the caller owns it.
func (c *Client) Take(name string) (fd int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fd, ok = c.kept[name]
	delete(c.kept, name)
	return fd, ok
}

// Names returns what the last agent left and nobody took, in order.
func (c *Client) Names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]string, 0, len(c.kept))
	for n := range c.kept {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// Ready tells the keeper that this agent is made, and waits for its turn: at once, or, in an upgrade, when the agent before
// has handed over.
func (c *Client) Ready(ctx context.Context) error {
	if err := send(c.sock, message{op: opReady, fd: -1}); err != nil {
		return err
	}
	select {
	case <-c.goOn:
		return nil
	case <-c.orphan:
		return errors.New("the keeper is gone")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Standby reports that this agent was started beside another one.
func (c *Client) Standby() bool { return c.standby }

// Leave is closed when this agent is to end and to leave everything to a successor.
func (c *Client) Leave() <-chan struct{} { return c.leave }

// Orphaned is closed when the keeper is gone.
func (c *Client) Orphaned() <-chan struct{} { return c.orphan }

// Ending tells the keeper that this agent ends because it was told to.
func (c *Client) Ending() { _ = send(c.sock, message{op: opEnding, fd: -1}) }

// Left tells the keeper that this agent has left everything to its successor.
func (c *Client) Left() { _ = send(c.sock, message{op: opLeft, fd: -1}) }

// forgetFailure drops what became of an earlier upgrade.
func (c *Client) forgetFailure() {
	select {
	case err := <-c.failed:
		_ = err // it was told to whoever asked for that one, if they still waited
	default:
	}
}

// Upgrade has the keeper start program, an open executable, as the next agent. It returns when this agent is told to leave,
// or with the reason why it is not.
func (c *Client) Upgrade(ctx context.Context, program *os.File) error {
	c.forgetFailure()
	if err := send(c.sock, message{op: opUpgrade, fd: int(program.Fd())}); err != nil {
		return err
	}
	select {
	case <-c.leave:
		return nil
	case err := <-c.failed:
		return err
	case <-c.orphan:
		return errors.New("the keeper is gone")
	case <-ctx.Done():
		return ctx.Err()
	}
}
