package contain

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// startDeadline is how long a containment may take to be built on a busy machine.
const startDeadline = 20 * time.Second

// Group is the control group a product lives in.
type Group interface {
	FD() (fd int, ok bool) // ok: a process can be cloned straight into it
	Join(pid int) error
}

// Options say with what a product starts. Start takes over none of the files.
type Options struct {
	Helper []string // argv of this program's contain command; the default re-executes this program with "contain"
	Group  Group
	Socket *os.File // becomes SocketFD
	Stdout *os.File
	Stderr *os.File
}

// Process is one running product with everything in its namespaces. Safe for concurrent use.
type Process struct {
	cmd    *exec.Cmd // nil if another process started it, and whoever that left it to reaps it
	init   int
	pidfd  *os.File // of init; nil unless the spec says Outlive
	alive  *os.File // its closing ends the namespace
	status *os.File
	pid    int
	notes  []Note
	done   chan struct{}
	exit   Exit        // valid after done
	left   atomic.Bool // Leave was called: done says nothing about the product
}

// Start builds the containment that spec describes and starts the product in it. It returns when the product's first
// program is being executed, or with the reason why it is not.
func (s *Spawner) Start(spec Spec, o Options) (*Process, error) {
	spec.Stage = "root"
	if len(o.Helper) == 0 {
		o.Helper = []string{"/proc/self/exe", "contain"}
	}
	pipes, err := openPipes()
	if err != nil {
		return nil, fmt.Errorf("start product: %w", err)
	}
	defer pipes.closeHelperEnds()
	p := &Process{alive: pipes.aliveW, status: pipes.statusR, done: make(chan struct{})}
	pidfd := -1
	p.cmd = helperCommand(o, pipes)
	if spec.Network {
		p.cmd.SysProcAttr.Cloneflags &^= unix.CLONE_NEWNET
	}
	if spec.Outlive {
		p.cmd.SysProcAttr.Pdeathsig, p.cmd.SysProcAttr.PidFD = 0, &pidfd
	}
	if err := s.start(p.cmd); err != nil {
		pipes.closeAll()
		return nil, fmt.Errorf("start containment: %w", err)
	}
	p.init = p.cmd.Process.Pid
	if pidfd >= 0 {
		p.pidfd = os.NewFile(uintptr(pidfd), "product's pid 1")
	}
	pipes.closeHelperEnds()
	err = p.release(spec, o.Group, pipes)
	messages := json.NewDecoder(bufio.NewReader(pipes.statusR))
	var inner int
	if err == nil {
		inner, err = p.awaitStart(messages, pipes.statusR)
	}
	if err != nil {
		p.Kill()
		_ = p.cmd.Wait()
		return nil, errors.Join(err, pipes.statusR.Close(), pipes.aliveW.Close(), p.closePidFD())
	}
	p.pid = p.hostPID(inner)
	go p.watch(messages)
	return p, nil
}

type pipeSet struct{ specR, specW, statusR, statusW, aliveR, aliveW *os.File }

func openPipes() (*pipeSet, error) {
	var p pipeSet
	for _, pair := range []struct{ r, w **os.File }{{&p.specR, &p.specW}, {&p.statusR, &p.statusW}, {&p.aliveR, &p.aliveW}} {
		r, w, err := os.Pipe()
		if err != nil {
			p.closeAll()
			return nil, err
		}
		*pair.r, *pair.w = r, w
	}
	return &p, nil
}

// closeHelperEnds and closeAll may meet closed and missing files: closing twice is harmless.
func (p *pipeSet) closeHelperEnds() {
	for _, f := range []*os.File{p.specR, p.statusW, p.aliveR} {
		_ = f.Close()
	}
}

func (p *pipeSet) closeAll() {
	p.closeHelperEnds()
	for _, f := range []*os.File{p.specW, p.statusR, p.aliveW} {
		_ = f.Close()
	}
}

func helperCommand(o Options, p *pipeSet) *exec.Cmd {
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET,
		Pdeathsig:  unix.SIGKILL,
		Setsid:     true,
	}
	if o.Group != nil {
		if fd, ok := o.Group.FD(); ok {
			attr.UseCgroupFD, attr.CgroupFD = true, fd
		}
	}
	return &exec.Cmd{
		Path:        o.Helper[0],
		Args:        o.Helper,
		Env:         []string{"GOMAXPROCS=1"}, // few threads: they count against the product's limit
		Stdout:      o.Stdout,
		Stderr:      o.Stderr,
		ExtraFiles:  []*os.File{p.specR, p.statusW, o.Socket, p.aliveR},
		SysProcAttr: attr,
	}
}

// release puts the helper into its control group and then tells it what to do: until then it waits.
func (p *Process) release(spec Spec, group Group, pipes *pipeSet) error {
	b, err := json.Marshal(spec)
	if err == nil && group != nil {
		if _, ok := group.FD(); !ok {
			err = group.Join(p.cmd.Process.Pid)
		}
	}
	if err == nil {
		_ = pipes.specW.SetWriteDeadline(time.Now().Add(startDeadline))
		_, err = pipes.specW.Write(b)
	}
	return errors.Join(err, pipes.specW.Close())
}

func (p *Process) awaitStart(messages *json.Decoder, statusR *os.File) (int, error) {
	if err := statusR.SetReadDeadline(time.Now().Add(startDeadline)); err != nil {
		return 0, fmt.Errorf("start containment: %w", err)
	}
	for {
		var m message
		if err := messages.Decode(&m); err != nil {
			return 0, fmt.Errorf("start containment: the helper ended early (out of memory or processes?): %w", err)
		}
		switch {
		case m.Note != nil:
			p.notes = append(p.notes, *m.Note)
		case m.Error != "":
			return 0, errors.New(m.Error)
		case m.Started != 0:
			return m.Started, statusR.SetReadDeadline(time.Time{})
		}
	}
}

// watch reads what pid 1 says at the end, and waits for it.
func (p *Process) watch(messages *json.Decoder) {
	defer close(p.done)
	exit := Exit{Code: 128 + int(unix.SIGKILL), Signal: int(unix.SIGKILL)} // what it is when pid 1 can say nothing any more
	for {
		var m message
		if messages.Decode(&m) != nil {
			break
		}
		if m.Exit != nil {
			exit = *m.Exit
		}
	}
	_ = p.status.Close()
	p.await() // pid 1 ends only after all others in its namespace are gone
	_ = p.alive.Close()
	_ = p.closePidFD()
	p.exit = exit
}

// hostPID finds the product's pid as the agent sees it, among the helper's children.
func (p *Process) hostPID(inner int) int {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.init))
	if err != nil {
		return 0
	}
	for _, t := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", p.init, t.Name()))
		if err != nil {
			continue
		}
		for _, w := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(w)
			if err == nil && innerPID(pid) == inner {
				return pid
			}
		}
	}
	return 0
}

// innerPID is a process's pid in its own namespace.
func innerPID(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(v)
			n, err := strconv.Atoi(f[len(f)-1])
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

// PID is the product's process id as the agent sees it; 0 if it was gone before it could be looked up.
func (p *Process) PID() int { return p.pid }

// InitPID is the process id of the pid 1 of the product's namespace.
func (p *Process) InitPID() int { return p.init }

// Notes are the steps that this machine could not do.
func (p *Process) Notes() []Note { return p.notes }

// Done is closed when nothing of the product runs any more, or after Leave.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit says how the product ended; it may be called after Done.
func (p *Process) Exit() Exit { return p.exit }

// Terminate asks the product to end, by SIGTERM.
func (p *Process) Terminate() { p.signal(unix.SIGTERM) }

// Kill ends everything in the product's namespace at once.
func (p *Process) Kill() { p.signal(unix.SIGKILL) }
