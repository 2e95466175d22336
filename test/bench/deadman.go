package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"bailey/internal/killtree"
)

// silence is how long the bench may be stuck in one piece of work before what answers its events is killed. The longest
// piece that beats nothing in between is a slow go build.
const silence = 3 * time.Minute

// watchPulse kills pid when in has been silent for too long or has ended without a goodbye. It opens nothing while it
// waits, so that it works when every open on the machine is blocked.
func watchPulse(in io.Reader, pid int) {
	beats := make(chan byte)
	go func() {
		defer close(beats)
		buf := make([]byte, 1)
		for {
			if _, err := in.Read(buf); err != nil {
				return
			}
			beats <- buf[0]
		}
	}()
	for {
		select {
		case b, ok := <-beats:
			if b == 'q' {
				return
			}
			if !ok {
				killtree.Kill(pid)
				return
			}
		case <-time.After(silence):
			fmt.Println("killed")
			killtree.Kill(pid)
			return
		}
	}
}

// pulse is the bench's side of the dead-man process. The zero value watches nothing.
type pulse struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out strings.Builder
	mu  sync.Mutex
}

// startDeadman watches pid, which answers permission events; 0 watches nothing.
func startDeadman(pid int) (*pulse, error) {
	if pid == 0 {
		return &pulse{}, nil
	}
	p := &pulse{cmd: exec.Command("/proc/self/exe", fmt.Sprintf("-deadman=%d", pid))}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is not for it
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.in = in
	return p, p.cmd.Start()
}

// beat says that work goes on. Safe for concurrent use.
func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.in != nil {
		_, _ = p.in.Write([]byte("."))
	}
}

// stop ends the watch and reports whether the process had to be killed.
func (p *pulse) stop() bool {
	if p.cmd == nil {
		return false
	}
	p.mu.Lock()
	_, _ = p.in.Write([]byte("q"))
	_ = p.in.Close()
	p.in = nil
	p.mu.Unlock()
	_ = p.cmd.Wait()
	return strings.Contains(p.out.String(), "killed")
}
