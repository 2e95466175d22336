package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"bailey/internal/killtree"
	"bailey/test/started"
)

// startChild starts a program that dies with this one.
func startChild(logFile, name string, args ...string) (*started.Program, error) {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // Ctrl-C is for the demo, which ends the rest in order
	return started.Start(logFile, attr, name, args...)
}

// endChild asks a program to stop and says so if it had to be killed.
func endChild(p *started.Program, name string, patience time.Duration) error {
	if p.End(patience) {
		fmt.Fprintf(os.Stderr, "run: %s did not end within %v and was killed\n", name, patience)
	}
	return nil
}

// silence is how long the machine may be unable to start a program before the agent is killed.
const silence = 15 * time.Second

// startDeadman starts the process that kills the agent when this program ends or stops proving, by starting a program every
// second, that the machine works.
func (d *demo) startDeadman(context.Context) error {
	cmd := exec.Command("/proc/self/exe", fmt.Sprintf("-deadman=%d", d.agent.PID()))
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
		killtree.Kill(pid)
		return
	}
}
