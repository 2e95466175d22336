package agent

import (
	"context"
	"fmt"
	"path"
	"strings"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/unit"
	"bailey/agent/unlock/token"
	"bailey/internal/boottime"
)

// asksManager is what a tamper event's hook says when somebody asked the service manager, whose refusal it is.
const asksManager = "service_manager"

// unitName is the name of the unit that systemd runs the agent as, empty where it is none.
func (a *Agent) unitName() string {
	name := path.Base(serviceOf(a.first()))
	if !strings.HasSuffix(name, ".service") {
		return ""
	}
	return name
}

// runUnit tells who asks the service manager to stop the agent or to change its unit, until ctx ends.
func (a *Agent) runUnit(ctx context.Context) error {
	name := a.unitName()
	if name == "" {
		<-ctx.Done()
		return nil
	}
	w, err := unit.NewWatch(name)
	if err == nil {
		a.health.Set(health.Entry{Component: "service", Status: health.OK, Summary: "who asks the service manager to stop or change " + name + " is told of"})
		err = w.Run(ctx, a.asked)
	}
	if err != nil { // nobody stands still for it
		a.health.Set(health.Entry{
			Component: "service", Status: health.Degraded, Summary: "it is not seen who asks the service manager to stop or change " + name + ": " + err.Error(),
			Remedy: "use a kernel with CONFIG_DEBUG_INFO_BTF and CONFIG_BPF_EVENTS",
		})
		<-ctx.Done()
	}
	return nil
}

// asked tells all who may see it what was asked. The service manager refuses, unless an operator's token says otherwise.
func (a *Agent) asked(q unit.Asked) {
	select {
	case <-a.guarded:
	default:
		return // the agent is still starting, and nobody can tell what is allowed
	}
	refused := a.guard == nil || !a.door.Allows(token.Stop.String())
	p, err := a.processes.Load(q.PID)
	if err != nil || !sameStart(p.Key.Start, q.Start) { // it ended meanwhile
		p = &event.Process{Key: event.ProcessKey{PID: q.PID, Start: q.Start}, Comm: q.Comm, Credentials: event.Credentials{UID: q.UID, EUID: q.UID}}
	}
	a.log.Warn("somebody asked the service manager to stop or change the agent", "command", q.Command, "refused", refused, "by", a.lineage(p))
	a.hub.Publish(&event.Event{Kind: event.Tamper, Time: boottime.Now(), Process: p, Tamper: &event.TamperDetail{
		Hook: asksManager, Refused: refused, Name: q.Command,
	}})
}

// sameStart compares starts of processes, which /proc counts in ticks and the kernel in nanoseconds.
func sameStart(a, b uint64) bool {
	const tick = 10_000_000
	return a/tick == b/tick
}

// lineage names a process and those it comes from, as far as they live.
func (a *Agent) lineage(p *event.Process) string {
	const most = 32
	var out []string
	for len(out) < most {
		name := p.Executable.Path
		if name == "" {
			name = p.Comm
		}
		out = append(out, fmt.Sprintf("%d %s (uid %d)", p.Key.PID, name, p.Credentials.UID))
		parent, err := a.processes.Load(p.Parent.PID)
		if p.Parent.PID == 0 || err != nil || !sameStart(parent.Key.Start, p.Parent.Start) {
			break
		}
		p = parent
	}
	return strings.Join(out, " < ")
}

// allowStop has the service manager obey who stops the agent, or not.
func (a *Agent) allowStop(allowed bool) {
	name := a.unitName()
	if name == "" {
		return
	}
	if err := unit.NewStop(name).Allow(allowed); err != nil {
		a.log.Error("the service manager does not know whether the agent may be stopped", "allowed", allowed, "err", err)
	}
}
