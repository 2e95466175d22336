package contain

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrEnded says that a product to be taken over runs no more.
var ErrEnded = errors.New("it has ended")

// Parts are what a process needs to take over a product that another one started.
type Parts struct {
	Init   int      // pid of the namespace's pid 1
	PID    int      // of the product
	Notes  []Note   // of its start
	PidFD  *os.File // of pid 1
	Alive  *os.File // the write end of the pipe that the product's life hangs on
	Status *os.File // the read end of what pid 1 says
}

// Parts returns the product's; the files stay the Process's. Only for a product that may outlive its agent.
func (p *Process) Parts() Parts {
	return Parts{Init: p.init, PID: p.pid, Notes: p.notes, PidFD: p.pidfd, Alive: p.alive, Status: p.status}
}

// Adopt takes over a running product with its files, which are closed if it fails.
func Adopt(a Parts) (*Process, error) {
	p := &Process{init: a.Init, pid: a.PID, notes: a.Notes, pidfd: a.PidFD, alive: a.Alive, status: a.Status, done: make(chan struct{})}
	ended, err := p.ended(0)
	if err == nil && ended {
		err = ErrEnded
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take product over: %w", err), p.pidfd.Close(), p.alive.Close(), p.status.Close())
	}
	go p.watch(json.NewDecoder(bufio.NewReader(p.status)))
	return p, nil
}

// Leave gives a product that may outlive this process up to whoever holds its parts, without telling it. Done is closed when
// nothing here watches it any more.
func (p *Process) Leave() {
	p.left.Store(true)
	_ = p.status.Close() // the watcher wakes
	<-p.done
}

// Left reports whether Leave was called.
func (p *Process) Left() bool { return p.left.Load() }

// await waits until pid 1 has ended, by the right of a parent or by looking.
func (p *Process) await() {
	switch {
	case p.left.Load():
		if p.cmd != nil {
			_ = p.cmd.Process.Release()
		}
	case p.cmd != nil:
		_ = p.cmd.Wait()
	default:
		_, _ = p.ended(-1) // it cannot fail any more: it worked when the product was taken over
	}
}

// ended waits up to timeout ms, for ever if that is negative, for pid 1 to have ended.
func (p *Process) ended(timeout int) (ended bool, err error) {
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return false, fmt.Errorf("look at product's pid 1: %w", err)
	}
	cerr := conn.Control(func(fd uintptr) {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			var n int
			n, err = unix.Poll(fds[:], timeout)
			if !errors.Is(err, unix.EINTR) {
				ended = n > 0
				return
			}
		}
	})
	if err = errors.Join(err, cerr); err != nil {
		return false, fmt.Errorf("look at product's pid 1: %w", err)
	}
	return ended, nil
}

// signal sends sig to pid 1, which hands it on.
func (p *Process) signal(sig unix.Signal) {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(sig) // it may be gone already
		return
	}
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return // closed: it is gone
	}
	_ = conn.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
}

func (p *Process) closePidFD() error {
	if p.pidfd == nil {
		return nil
	}
	return p.pidfd.Close()
}
