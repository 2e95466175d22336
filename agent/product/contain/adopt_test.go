package contain_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/product/cgroup"
	"bailey/agent/product/contain"
)

func (a *arena) startToOutlive(command ...string) *contain.Process {
	a.t.Helper()
	a.spec.Outlive = true
	return a.start(command...)
}

// copyOf is what a keeper does with a descriptor.
func copyOf(t *testing.T, f *os.File) *os.File {
	t.Helper()
	conn, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	if cerr := conn.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return os.NewFile(uintptr(fd), f.Name())
}

func copies(t *testing.T, p *contain.Process) contain.Parts {
	parts := p.Parts()
	parts.PidFD, parts.Alive, parts.Status = copyOf(t, parts.PidFD), copyOf(t, parts.Alive), copyOf(t, parts.Status)
	return parts
}

// reap is the keeper's: what the agent that started a product left has a new parent, here this process itself.
func reap(t *testing.T, pid int) {
	t.Helper()
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil {
		t.Errorf("reap pid 1: %v", err)
	}
}

func TestAdopt_goes_on_with_all_that_a_parent_has(t *testing.T) {
	a := newArena(t, cgroup.Limits{Memory: 128 << 20, Pids: 64, CPU: 1})
	p := a.startToOutlive("sleep")
	parts := copies(t, p)
	p.Leave()
	if !p.Left() {
		t.Error("it is not left")
	}
	q, err := contain.Adopt(parts)
	if err != nil {
		t.Fatal(err)
	}
	if q.PID() != p.PID() || q.InitPID() != p.InitPID() || q.PID() == 0 {
		t.Errorf("pids %d and %d, they were %d and %d", q.PID(), q.InitPID(), p.PID(), p.InitPID())
	}
	select {
	case <-q.Done():
		t.Fatal("it ended")
	case <-time.After(50 * time.Millisecond):
	}
	go func() { <-time.After(20 * time.Millisecond); q.Terminate() }()
	if exit := a.wait(q); exit.Signal != int(unix.SIGTERM) && exit.Code != 2 {
		t.Errorf("got %+v, want ended by SIGTERM", exit)
	}
	reap(t, q.InitPID())
}

func TestAdopt_sees_the_exit_and_can_kill(t *testing.T) {
	for name, end := range map[string]func(*contain.Process){
		"product_killed":   func(p *contain.Process) { _ = unix.Kill(p.PID(), unix.SIGKILL) },
		"namespace_killed": func(p *contain.Process) { p.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			a := newArena(t, cgroup.Limits{Memory: 128 << 20, Pids: 64, CPU: 1})
			p := a.startToOutlive("sleep")
			parts := copies(t, p)
			p.Leave()
			q, err := contain.Adopt(parts)
			if err != nil {
				t.Fatal(err)
			}
			end(q)
			if exit := a.wait(q); exit.Signal != int(unix.SIGKILL) {
				t.Errorf("got %+v", exit)
			}
			reap(t, q.InitPID())
			if pids, err := a.group.Procs(); err != nil || len(pids) != 0 {
				t.Errorf("left: %v, %v", pids, err)
			}
		})
	}
}

func TestAdopt_of_one_that_ended(t *testing.T) {
	a := newArena(t, cgroup.Limits{Memory: 128 << 20, Pids: 64, CPU: 1})
	p := a.startToOutlive("sleep")
	parts := copies(t, p)
	p.Leave()
	if err := unix.Kill(p.InitPID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	reap(t, p.InitPID())
	if _, err := contain.Adopt(parts); !errors.Is(err, contain.ErrEnded) {
		t.Errorf("got %v", err)
	}
}

// Without agent and keeper nobody holds the pipe any more, and the kernel ends the product.
func TestOutlive_ends_with_the_last_who_holds_it(t *testing.T) {
	a := newArena(t, cgroup.Limits{Memory: 128 << 20, Pids: 64, CPU: 1})
	p := a.startToOutlive("stubborn")
	parts := copies(t, p)
	p.Leave()
	_ = parts.Status.Close()
	if n := a.group.Stats().Pids; n == 0 {
		t.Error("it ended while its pipe was held")
	}
	if err := parts.Alive.Close(); err != nil {
		t.Fatal(err)
	}
	reap(t, p.InitPID()) // returns when it has ended, which nobody else can make it do
	_ = parts.PidFD.Close()
	if pids, err := a.group.Procs(); err != nil || len(pids) != 0 {
		t.Errorf("left: %v, %v", pids, err)
	}
}
