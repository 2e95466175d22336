package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"bailey/agent/config"
	"bailey/agent/event"
	"bailey/agent/guard"
	"bailey/agent/health"
	"bailey/internal/bpflsm"
	"bailey/internal/cgroup2"
)

// guardComponent is the guard's name in the health registry.
const guardComponent = "guard"

// unitFiles are what the service manager starts the agent by; those that are not there are passed over.
var unitFiles = []string{"/usr/lib/systemd/system/bailey.service", "/etc/systemd/system/bailey.service", "/etc/systemd/system/bailey.service.d"}

// runGuard takes the guard over or puts it in force, and tells what it refuses.
func (a *Agent) runGuard(ctx context.Context) error {
	err := a.startGuard()
	close(a.guarded)
	if err != nil {
		return err
	}
	if a.guard == nil {
		<-ctx.Done()
		return nil
	}
	return a.guard.Run(ctx)
}

func (a *Agent) startGuard() error {
	mode := a.cfg.Guard.Enabled
	switch {
	case a.guardOff:
		a.unguarded(health.Degraded, "this machine was booted with "+GuardOff, "when the operators' keys are in order again, reboot without it")
		return nil
	case mode == config.GuardOff:
		a.unguarded(health.OK, "it is off by the configuration", "")
		return nil
	}
	cfg, err := a.guardConfig()
	if err == nil {
		a.guard, err = guard.Start(cfg)
	}
	if err != nil {
		remedy := guard.Remedy(err)
		if mode == config.GuardOn {
			return fmt.Errorf("%w; %s, or set guard.enabled to \"auto\"", err, remedy)
		}
		a.unguarded(health.Degraded, err.Error(), remedy)
		return nil
	}
	a.lock = lock{a.guard, a.allowStop}
	a.door.Attach(a.lock, "")
	if a.guard.Locked() { // an agent before this one may have ended while it was not
		a.allowStop(false)
	}
	if err := a.guardProducts(); err != nil {
		return err
	}
	a.health.Set(guardHealth(a.guard.Missing(), a.guard.Silent()))
	return nil
}

// guardHealth says what a guard does that is in force.
func guardHealth(missing, silent []string) health.Entry {
	e := health.Entry{Component: guardComponent, Status: health.OK, Summary: "what others try against the platform is refused, whoever they are"}
	if len(missing) > 0 {
		e.Status, e.Remedy = health.Degraded, "use a newer kernel"
		e.Summary = "what others try against the platform is refused, but not what this kernel has no hook for: " + strings.Join(missing, ", ")
	}
	if len(silent) > 0 {
		e.Status, e.Remedy = health.Degraded, bpflsm.Remedy(bpflsm.ErrSilent)
		e.Summary = "what others try against the platform is refused, but not at hooks that are attached and that this kernel does not call: " +
			strings.Join(slices.Concat(silent, missing), ", ")
	}
	return e
}

// unguarded says why there is no guard.
func (a *Agent) unguarded(status health.Status, why, remedy string) {
	a.door.Attach(nil, why)
	a.health.Set(health.Entry{Component: guardComponent, Status: status, Summary: "root can stop and change the agent: " + why, Remedy: remedy})
}

func (a *Agent) guardConfig() (guard.Config, error) {
	bpffs, err := os.Stat("/sys/fs/bpf")
	if err != nil || !bpffs.IsDir() {
		return guard.Config{}, fmt.Errorf("find a place for the guard's pins: %w", err)
	}
	programs, err := a.ownPrograms()
	if err != nil {
		return guard.Config{}, err
	}
	c := guard.Config{
		Pins: "/sys/fs/bpf/" + a.products.ControlGroup() + "-guard", Scratch: a.cfg.Agent.State, Paths: []string{a.cfg.Agent.State, a.cfg.Agent.Run}, Programs: programs,
		AllowTracing: a.cfg.Guard.AllowTracing, AllowKexec: a.cfg.Guard.AllowKexec, Emit: a.tampered, Log: a.log,
	}
	for _, path := range append([]string{filepath.Dir(config.DefaultPath)}, unitFiles...) {
		if _, err := os.Stat(path); err == nil {
			c.Paths = append(c.Paths, path)
		}
	}
	if a.bpffs != nil {
		c.Pinned = []string{a.bpffs.Pins}
	}
	if _, err := os.Stat(a.rulePins()); err == nil {
		c.Pinned = append(c.Pinned, a.rulePins())
	}
	if a.parent != nil {
		c.Trusted = []uint32{a.first()}
	}
	c.Service = serviceOf(a.first())
	if c.Service != "" {
		c.Cgroups = append(c.Cgroups, cgroup2.Root+c.Service)
	}
	return c, nil
}

// first is the process that was started: the keeper, where there is one.
func (a *Agent) first() uint32 {
	if a.parent != nil {
		return uint32(a.parent.PID())
	}
	return uint32(os.Getpid())
}

// serviceOf returns the control group of a process that the service manager started, empty for any other.
func serviceOf(pid uint32) string {
	status, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/status")
	if err != nil || !strings.Contains(string(status), "\nPPid:\t1\n") {
		return ""
	}
	group, err := cgroup2.Of(pid)
	if err != nil || group == "/" {
		return ""
	}
	return group
}

// guardProducts protects the products' control groups, and the products that an earlier agent left in them.
func (a *Agent) guardProducts() error {
	root := filepath.Join(cgroup2.Root, a.products.ControlGroup())
	if err := os.Mkdir(root, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil // no control groups of version 2: the products' manager says what that means
	}
	if err := a.guard.Protect(root); err != nil {
		return err
	}
	groups, err := filepath.Glob(root + "/*/cgroup.procs")
	if err != nil {
		return err
	}
	for _, file := range groups {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it went meanwhile, with its processes
		}
		for _, word := range strings.Fields(string(text)) {
			pid, err := strconv.ParseUint(word, 10, 32)
			if err != nil {
				continue
			}
			if err := a.guard.ProtectProcess(uint32(pid)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// trustProgram has the keeper stay trusted's child when it executes the next agent's program.
func (a *Agent) trustProgram(path string) error {
	select {
	case <-a.guarded:
	default:
		return errors.New("the agent is still starting")
	}
	if a.guard == nil {
		return nil
	}
	return a.guard.TrustProgram(path)
}

// endGuard ends the guard with the agent, if it was meant to end: one that failed is started again, and nothing is
// unprotected meanwhile.
func (a *Agent) endGuard(failure error) error {
	if a.guard == nil {
		return nil
	}
	return a.end(a.guard, failure)
}

// end ends what outlives agents: for good if this one was meant to end, and the machine is not.
func (a *Agent) end(part interface {
	Leave() error // for the next agent
	Close() error // nothing is left
}, failure error) error {
	if failure != nil || a.leaving.Load() || machineEnds() {
		return part.Leave()
	}
	return part.Close()
}

// machineEnds reports whether process 1 has become what ends the machine, and waits for this agent: what is in the kernel goes with it, and to detach
// dozens of programs takes the kernel seconds.
func machineEnds() bool {
	comm, err := os.ReadFile("/proc/1/comm")
	return err == nil && string(comm) == "systemd-shutdow\n" // as far as the kernel keeps names
}

// tampered tells all who may see it what was tried.
func (a *Agent) tampered(t guard.Attempt) {
	e := &event.Event{Kind: event.Tamper, Time: t.Time, Process: a.culprit(&t), Tamper: &event.TamperDetail{
		Hook: t.Hook.String(), Refused: t.Refused, Undone: t.Undone, Target: event.ProcessKey{PID: t.Target, Start: t.TargetStart},
		Name: t.Name, Detail: t.Detail, Suppressed: t.Suppressed,
	}}
	a.log.Warn("somebody tried something against the platform", "hook", e.Tamper.Hook, "pid", t.PID, "comm", t.Comm, "refused", t.Refused, "name", t.Name)
	a.hub.Publish(e)
}

// culprit is what is known of a process: all of it, if the process sensor knows it, or what the guard saw.
func (a *Agent) culprit(t *guard.Attempt) *event.Process {
	key := event.ProcessKey{PID: t.PID, Start: t.Start}
	if p := a.processes.Lookup(t.PID); p != nil && slices.Contains([]uint64{t.Start, t.Start / 10_000_000 * 10_000_000}, p.Key.Start) {
		return p
	}
	return &event.Process{Key: key, Comm: t.Comm, Credentials: event.Credentials{UID: t.UID, EUID: t.UID}}
}
