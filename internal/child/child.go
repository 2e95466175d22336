// Package child is a program that this process started, waits for and ends in order.
//
// Invariant: it is reaped, whoever looks at how it ended.
package child

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"bailey/internal/launch"
)

// Process is the program. Safe for concurrent use.
type Process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	how   error // after ended
}

// Start starts cmd, which must not have been started.
func Start(cmd *exec.Cmd) (*Process, error) {
	if err := launch.Start(cmd); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, ended: make(chan struct{})}
	go func() {
		p.how = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// PID is the process's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Wait returns when the process has ended, with what exec.Cmd.Wait says of how.
func (p *Process) Wait() error {
	<-p.ended
	return p.how
}

// Until calls f, on the caller's thread, until it succeeds, the process ends or ctx does.
func (p *Process) Until(ctx context.Context, f func() error) error {
	began, tick := time.Now(), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			if p.how == nil {
				return errors.New("it ended: exit status 0")
			}
			return fmt.Errorf("it ended: %w", p.how)
		case <-ctx.Done():
			return fmt.Errorf("in %v: %w", time.Since(began).Round(time.Second), err)
		case <-tick.C:
		}
	}
}

// Stop tells the process to end (SIGTERM), and kills it when it did not within patience. The error is of a process that was killed, or that ended with one.
func (p *Process) Stop(patience time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		if p.how != nil {
			return fmt.Errorf("told to end, it ended with %w", p.how)
		}
		return nil
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		_ = p.Wait()
		return fmt.Errorf("told to end, it did not within %v and was killed", patience)
	}
}
