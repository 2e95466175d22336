package agent

import (
	"context"
	"errors"
	"path/filepath"

	"bailey/agent/brake"
	"bailey/agent/control"
	"bailey/agent/event"
	controlv1 "bailey/api/control/v1"
	"bailey/internal/boottime"
)

// brakeFile is where braked products are remembered, in the state directory.
const brakeFile = "brake.json"

func (a *Agent) newBrake() (err error) {
	c := a.cfg.Brake
	a.brake, err = brake.New(brake.Config{
		File: filepath.Join(a.cfg.Agent.State, brakeFile), Now: boottime.Now,
		Limits: brake.Limits{
			Window: c.Window.Duration, PackageFiles: c.PackageFiles, Files: c.Files, Critical: c.Critical, ExecPercent: c.ExecPercent,
		},
		Owned: a.critical.Owned, Restrain: a.setBraked,
		Emit: a.hub.Publish, Wanted: func() bool { return a.hub.Wants(event.Finding) },
		Execs: a.execs, Repeated: a.engine.Repeated, Log: a.log, Health: a.health,
	})
	return err
}

// setBraked makes a product's denies count no more, or again: its answers, and its rules in the kernel.
func (a *Agent) setBraked(product string, on bool, reason string) {
	if a.rules != nil {
		a.rules.SetBraked(product, on)
	}
	a.hub.SetBraked(product, on, reason)
}

// execs is how many programs this machine has started since products are asked.
func (a *Agent) execs() (uint64, bool) {
	c, err := a.processes.Counters()
	return c.Execs, err == nil && c.Execs > 0
}

// setDegraded passes on that a product is not waited for any more, or again, with what it lacks if that is known.
func (a *Agent) setDegraded(number int, degraded bool, reason string) {
	if degraded {
		if strain := a.products.Strain(a.hub.Name(number)); strain != "" {
			reason += "; " + strain
		}
	}
	a.hub.SetDegraded(number, degraded, reason)
}

// productEvent tells a running product's authority as the hub knows it: its supervisor only knows the grants.
func (a *Agent) productEvent(e *event.Event) {
	if p := e.Product; p != nil && p.State == "running" {
		if word := a.hub.Authority(p.Product); word != "" {
			p.Authority = word
		}
	}
	a.hub.Publish(e)
}

// brakes shows and releases braked products for the operator.
type brakes Agent

var _ control.Brake = (*brakes)(nil)

// List returns the braked products.
func (b *brakes) List(context.Context) ([]*controlv1.BrakedProduct, error) {
	var out []*controlv1.BrakedProduct
	for _, r := range b.brake.List() {
		out = append(out, &controlv1.BrakedProduct{
			Product: r.Product, Release: r.Release, Since: r.Since.UnixNano(), Rule: r.Rule, Reason: r.Reason, Files: r.Files, Denies: r.Denies,
		})
	}
	return out, nil
}

// Release gives a braked product its right to deny back.
func (b *brakes) Release(_ context.Context, name string) error {
	err := b.brake.Release(name)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, brake.ErrNotBraked):
		return &control.Fault{Class: control.Refused, Message: name + " is not braked", Hint: "`bailey brake list` shows those that are", Err: err}
	}
	return &control.Fault{
		Class: control.Internal, Message: name + " is released until the agent ends; that could not be written: " + err.Error(), Err: err,
		Hint: "make room in the state directory and make it writable, then restart nothing: the next braking or release writes it again",
	}
}
