package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bailey/agent/control"
	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/sensor/file"
	"bailey/agent/sensor/process"
	controlv1 "bailey/api/control/v1"
	"bailey/internal/launch"
)

// This file is the agent's side of its keeper. Without one every method does what an agent alone needs.

// newControlUnlessStandby takes the control socket, which an agent that stands by leaves to the one that serves.
func (a *Agent) newControlUnlessStandby() error {
	if a.parent != nil && a.parent.Standby() {
		return nil
	}
	return a.takeControl()
}

// lockPatience is how long the control socket's lock may outlive an agent that was killed: a child that it was just starting
// has it until it executes its program.
const lockPatience = 5 * time.Second

// takeControl takes the control socket, from an agent that just died if need be.
func (a *Agent) takeControl() error {
	err := a.newControl()
	if a.parent == nil {
		return err
	}
	for end := time.Now().Add(lockPatience); errors.Is(err, control.ErrInUse) && time.Now().Before(end); err = a.newControl() {
		time.Sleep(5 * time.Millisecond) //nolint:forbidigo // another process is waited for
	}
	return err
}

// takeTurn returns when this agent is the one that serves.
func (a *Agent) takeTurn(ctx context.Context) error {
	if a.parent == nil {
		return nil
	}
	if err := a.parent.Ready(ctx); err != nil {
		return err
	}
	if a.control == nil {
		return a.takeControl()
	}
	return nil
}

// untilLeave returns a context that also ends when the keeper wants everything left to a successor.
func (a *Agent) untilLeave(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(parent)
	if a.parent == nil {
		return ctx, cancel
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-a.parent.Leave():
			a.Leave()
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); <-done }
}

// Leave makes the end of Run leave everything to the agent that takes over: what waits in the kernel, the products that can go
// on with it, and the process sensor's part in the kernel.
func (a *Agent) Leave() {
	a.leaving.Store(true)
	if a.rules != nil { // the successor has them from when the products are left to it
		if err := a.rules.Leave(); err != nil {
			a.log.Warn("rules are not let go of cleanly", "err", err)
		}
	}
	a.files.Leave()
	a.products.Leave()
}

// endProcesses detaches the process sensor, or leaves it to a successor.
func (a *Agent) endProcesses() error {
	ends := machineEnds()
	if ends {
		a.processes.Leave()
	}
	err := a.processes.Close()
	if a.bpffs != nil && !a.leaving.Load() && !ends {
		err = errors.Join(err, a.bpffs.Close())
	}
	return err
}

// runProducts runs the products, from when it is known what they must not deny. Before they are left to a successor the process
// sensor stops reading: they are told what it has read, and the rest is for the successor, which has everything then.
func (a *Agent) runProducts(ctx context.Context) error {
	select {
	case <-a.critical.Tried():
	case <-ctx.Done():
		return nil
	}
	select { // what is started before the agent is trusted is not
	case <-a.guarded:
	case <-ctx.Done():
		return nil
	}
	own, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	stop := context.AfterFunc(ctx, func() {
		if a.leaving.Load() {
			a.processes.Leave()
		}
		end()
	})
	defer stop()
	err := a.products.Run(own)
	if a.leaving.Load() && a.parent != nil {
		a.parent.Left()
	}
	return err
}

// pins is where the process sensor pins its part in the kernel: only a keeper makes that worth while.
func (a *Agent) pins() string {
	if a.parent == nil {
		return ""
	}
	b, err := process.FindBPFFS(a.cfg.Agent.Run)
	if err != nil {
		a.health.Set(health.Entry{
			Component: process.PinsComponent, Status: health.Degraded, Summary: "process events are lost while the agent is restarted: " + err.Error(),
			Remedy: "mount a bpffs: mount -t bpf bpf /sys/fs/bpf",
		})
		return ""
	}
	a.bpffs = b
	return b.Pins
}

// want is what products and taps want of the sensors.
type want struct {
	mu                sync.Mutex
	events, questions event.KindSet
	scope             []string
	said, open        bool
	opened            chan struct{}
}

// inheritPatience is how long products of an earlier agent are waited for before the sensors do as the others want.
const inheritPatience = time.Second

// inherit tells the sensors what is wanted, once the products of an earlier agent have said so too.
func (a *Agent) inherit(ctx context.Context) error {
	patience := time.NewTimer(inheritPatience)
	defer patience.Stop()
	select {
	case <-a.products.Resumed():
	case <-patience.C:
	case <-ctx.Done():
		return nil
	}
	a.want.mu.Lock()
	a.want.open = true
	if a.want.said {
		a.tellSensors(a.want.events, a.want.questions, a.want.scope)
	} else {
		a.processes.SetWanted(false)
	}
	close(a.want.opened)
	a.want.mu.Unlock()
	<-ctx.Done()
	return nil
}

// runFiles runs the file sensor from when it is known what is wanted: its first look at the marks would remove them.
func (a *Agent) runFiles(ctx context.Context) error {
	select {
	case <-a.want.opened:
		return a.files.Run(ctx)
	case <-ctx.Done():
		a.files.Close()
		return nil
	}
}

// platformRoot is the process whose descendants are the platform: products of an agent that died are the keeper's children.
func (a *Agent) platformRoot() uint32 {
	if a.parent != nil {
		return uint32(a.parent.PID())
	}
	return uint32(os.Getpid())
}

func (a *Agent) beats() *atomic.Uint64 {
	if a.parent == nil {
		return nil
	}
	return a.parent.Board().Beats
}

func (a *Agent) open() *atomic.Int64 {
	if a.parent == nil {
		return nil
	}
	return a.parent.Board().Unanswered
}

func (a *Agent) pulse() *file.Pulse {
	if a.parent == nil {
		return nil
	}
	b := a.parent.Board()
	return &file.Pulse{Serving: b.Serving, Armed: b.Armed, Turns: b.Turns, Highest: b.Highest, Bypassing: b.Bypassing, Answered: b.Answered}
}

// kept says what the keeper did; nil without one.
func (s *status) kept() *controlv1.Keeper {
	if s.parent == nil {
		return nil
	}
	b := s.parent.Board()
	return &controlv1.Keeper{
		Pid: uint32(s.parent.PID()), Started: b.Started.Load(), Bypassing: b.Bypassing.Load() != 0, Bypassed: b.Bypassed.Load(),
		Bypasses: b.Bypasses.Load(), Released: b.Released.Load(), Restarts: b.Restarts.Load(), Kills: b.Kills.Load(),
		LongestGap: b.LongestGap.Load(), Answered: b.Answered.Load(),
	}
}

// probePatience is how long a program may take to say its version.
const probePatience = 5 * time.Second

// Upgrade has the program at path started as the next agent. It is tried first: what cannot say its version is no agent.
func (s *status) Upgrade(ctx context.Context, path string) error {
	if s.parent == nil {
		return &control.Fault{Class: control.Refused, Message: errAlone.Error(), Hint: "start it without --alone"}
	}
	f, err := os.Open(path)
	if err != nil {
		return fault(fmt.Errorf("open the new agent: %w", err))
	}
	defer func() { _ = f.Close() }()
	version, err := versionOf(ctx, f, nil)
	if err != nil {
		return &control.Fault{Class: control.Refused, Message: fmt.Sprintf("%s is not a bailey that runs here: %v", path, err), Hint: "give the path of a bailey binary for this machine"}
	}
	s.log.Info("upgrade", "path", path, "version", version)
	if err := s.own.upgrade(ctx, path, byHand); err != nil {
		return &control.Fault{Class: control.Refused, Message: "the upgrade failed, and this agent goes on: " + err.Error(), Hint: "look at the log for what the new agent said"}
	}
	return nil
}

// versionOf runs a program's version command.
func versionOf(ctx context.Context, program *os.File, attr *syscall.SysProcAttr) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, fmt.Sprintf("/proc/self/fd/%d", program.Fd()), "version", "--json")
	cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", []string{}, attr
	out, err := launch.Output(cmd)
	if err != nil {
		return "", err
	}
	var v struct {
		Version string `json:"version"`
	}
	if err := json.Unmarshal(out, &v); err != nil || v.Version == "" {
		return "", fmt.Errorf("it does not say its version")
	}
	return v.Version, nil
}
