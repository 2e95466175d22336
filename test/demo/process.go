package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// child is a started program whose output goes to a file. It dies with this program.
type child struct {
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{}
}

func startChild(logFile, name string, args ...string) (*child, error) {
	log, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(name, args...), log: log, done: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // Ctrl-C is for the demo, which ends the rest in order
	if err := c.cmd.Start(); err != nil {
		log.Close()
		return nil, err
	}
	go func() {
		_ = c.cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

// end asks the program to stop and kills it when it does not within patience.
func (c *child) end(patience time.Duration) {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(patience):
		fmt.Fprintf(os.Stderr, "run: %s did not end within %v and was killed\n", c.cmd.Path, patience)
		_ = c.cmd.Process.Kill()
		<-c.done
	}
	c.log.Close()
}

// output returns the last lines that the program wrote.
func (c *child) output() string {
	text, _ := os.ReadFile(c.log.Name())
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// await asks ready until it says yes, the program ends, or patience does.
func (c *child) await(ctx context.Context, patience time.Duration, ready func() error) error {
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if err = ready(); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.done:
			return fmt.Errorf("it ended: %s", c.output())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("not ready after %v: %w\n%s", patience, err, c.output())
}

// silence is how long the machine may be unable to start a program before the agent is killed.
const silence = 15 * time.Second

// startDeadman starts the process that kills the agent when this program ends or stops proving, by starting a program every
// second, that the machine works.
func (d *demo) startDeadman(context.Context) error {
	cmd := exec.Command("/proc/self/exe", fmt.Sprintf("-deadman=%d", d.agent.cmd.Process.Pid))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				_, _ = in.Write([]byte("q"))
				return
			case <-time.After(time.Second):
			}
			if exec.Command("/bin/true").Run() == nil {
				_, _ = in.Write([]byte("."))
			}
		}
	}()
	d.later(func() error {
		close(stop)
		<-stopped
		_ = in.Close()
		return cmd.Wait()
	})
	return nil
}

// watchPulse kills pid when in ends without a goodbye or is silent for too long. It opens no file while it waits, so that it
// works when every open on the machine is blocked.
func watchPulse(in *bufio.Reader, pid int) {
	beats := make(chan byte)
	go func() {
		defer close(beats)
		for {
			b, err := in.ReadByte()
			if err != nil {
				return
			}
			beats <- b
		}
	}()
	for {
		select {
		case b, ok := <-beats:
			if b == 'q' {
				return
			}
			if ok {
				continue
			}
			fmt.Fprintln(os.Stderr, "run: the demo ended without a word: killing the agent")
		case <-time.After(silence):
			fmt.Fprintf(os.Stderr, "run: no program could be started for %v: killing the agent\n", silence)
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
		return
	}
}
