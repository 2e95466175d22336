// Package started is a program that a bench or the demo has started: what it says goes to a file, and it is waited for and ended with patience.
package started

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Program is one that was started. Safe for concurrent use.
type Program struct {
	process *os.Process
	log     string
	done    chan struct{}
}

// Start starts a program with a log of its own.
func Start(log string, attr *syscall.SysProcAttr, name string, args ...string) (*Program, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the program has its own
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = f, f, attr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Program{process: cmd.Process, log: log, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // what it said is in the log
		close(p.done)
	}()
	return p, nil
}

// Adopt is a program that somebody else is the parent of, and that writes to log.
func Adopt(log string, pid int) (*Program, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", pid, err)
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch process %d: %w", pid, err), unix.Close(fd))
	}
	p := &Program{process: process, log: log, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		defer unix.Close(fd)
		for {
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	return p, nil
}

// PID is the program's process.
func (p *Program) PID() int { return p.process.Pid }

// Done is closed when the program has ended.
func (p *Program) Done() <-chan struct{} { return p.done }

// Await asks ready until it says yes, the program ends, or patience does.
func (p *Program) Await(ctx context.Context, patience time.Duration, ready func() error) error {
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if err = ready(); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			return fmt.Errorf("it ended: %s", p.Output())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("not ready after %v: %w\n%s", patience, err, p.Output())
}

// End asks the program to stop and kills it when it does not within patience. It reports whether it had to.
func (p *Program) End(patience time.Duration) (killed bool) {
	_ = p.process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return false
	case <-time.After(patience):
		p.Kill()
		return true
	}
}

// Kill ends the program at once.
func (p *Program) Kill() {
	_ = p.process.Kill()
	<-p.done
}

// Output returns the last lines that the program wrote.
func (p *Program) Output() string {
	text, _ := os.ReadFile(p.log)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}
