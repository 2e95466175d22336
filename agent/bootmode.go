package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"bailey/agent/boot"
	"bailey/agent/control"
	"bailey/agent/health"
	"bailey/agent/journal"
	"bailey/agent/product"
	controlv1 "bailey/api/control/v1"
)

// SafeBoot on the kernel's command line makes that boot one in safe mode, whatever happened before.
const SafeBoot = "bailey.safe=1"

const safeBooted = "the machine was booted with " + SafeBoot

// newBoot finds out how the boot before went. What it does about it, it does before any product runs and any sensor works: what was changed goes back,
// or no product is started at all. An agent that stands by is in the boot of the one that serves.
func (a *Agent) newBoot() error {
	a.boot = boot.Open(boot.Config{
		State: a.cfg.Agent.State, ID: a.bootID, Platform: "bailey " + a.build.Version + " on " + kernelRelease(), Limit: a.cfg.Boot.SafeAfter,
	})
	forced := ""
	if a.safeBoot {
		forced = safeBooted
	}
	j := a.boot.Judge(a.enabled(), forced)
	if !j.Again {
		back := a.takeBack(j.Suspect)
		a.boot.Begin(j, back)
		a.booted = &j
	}
	r := a.boot.Record()
	if r.Safe != "" {
		a.log.Error("safe mode: no product is started and nobody is asked", "reason", r.Safe)
		a.products.Hold("safe mode: " + r.Safe)
	}
	if a.sensorsOff = r.SensorsOff(); a.sensorsOff != "" {
		a.log.Error("safe mode without sensors: nothing is seen", "reason", a.sensorsOff)
	}
	a.reportBoot()
	return nil
}

// takeBack puts products back to their releases before. A power cut in between has it done again.
func (a *Agent) takeBack(suspect []string) (back []boot.Back) {
	for _, name := range suspect {
		v, err := a.products.Show(name)
		if err != nil {
			continue // it was there a moment ago
		}
		now, err := a.products.GoBack(context.Background(), name, v.Release)
		switch {
		case errors.Is(err, product.ErrFirst):
			a.log.Warn("the boot before did not end well, and a product is new since the last good one", "product", name, "release", v.Release)
		case err != nil:
			a.log.Error("the boot before did not end well, and a product cannot go back", "product", name, "release", v.Release, "err", err)
		default:
			a.log.Warn("the boot before did not end well: a product goes back", "product", name, "from", v.Release, "to", now.Release)
			back = append(back, boot.Back{Product: name, From: v.Release, To: now.Release})
		}
	}
	return back
}

// enabled is what shall run.
func (a *Agent) enabled() map[string]string {
	out := map[string]string{}
	for _, v := range a.products.List() {
		if v.Enabled && v.Manifest != nil {
			out[v.Name] = v.Release
		}
	}
	return out
}

// maxBootPoll is how often it is looked whether the boot is good by now, at the least.
const maxBootPoll = time.Second

// runBoot marks the boot good once it, and what was changed in it last, lasted for long enough.
func (a *Agent) runBoot(ctx context.Context) error {
	if err := a.boot.Running(); err != nil {
		a.log.Warn("the boot is not remembered", "err", err)
	}
	patience := a.cfg.Boot.GoodAfter.Duration
	tick := time.NewTicker(min(patience/4, maxBootPoll))
	defer tick.Stop()
	seen, since := a.enabled(), time.Now()
	for marked := false; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if now := a.enabled(); !maps.Equal(now, seen) {
			seen, since, marked = now, time.Now(), false
		}
		if marked || time.Since(since) < patience {
			continue
		}
		marked = true
		if err := a.boot.Good(seen); err != nil {
			a.log.Warn("the boot is not remembered as good", "err", err)
		}
		a.reportBoot()
	}
}

// endBoot takes note that the agent ends because it was told to. A disk that does not take the note is none of the agent's failures.
func (a *Agent) endBoot(failure error) {
	if failure != nil || a.leaving.Load() {
		return
	}
	if err := a.boot.End(); err != nil {
		a.log.Warn("it is not remembered that the agent ended in order", "err", err)
	}
}

// reportBoot tells health how boots go.
func (a *Agent) reportBoot() {
	e, r := health.Entry{Component: "boot", Status: health.OK}, a.boot.Record()
	problem := a.boot.Problem()
	switch {
	case r.SensorsOff() != "":
		e.Status, e.Summary, e.Remedy = health.Failed, "safe mode without sensors, nothing is seen, no product is started and nobody is asked: "+r.SensorsOff(), leaveSafe(r)
	case r.Safe != "":
		e.Status, e.Summary, e.Remedy = health.Failed, "safe mode, no product is started and nobody is asked: "+r.Safe, leaveSafe(r)
	case a.sensorsOff != "":
		e.Status, e.Summary, e.Remedy = health.Failed, "this agent began without sensors: nothing is seen and nobody is asked", "start the agent again, or reboot"
	case problem != nil:
		e.Status, e.Summary = health.Degraded, "boots are not counted: "+problem.Error()
		e.Remedy = "make room for, or remove, " + boot.FileName + " in the state directory"
	case len(r.Back) > 0:
		e.Status, e.Summary = health.Degraded, "the boot before did not end well: "+backText(r.Back)
		e.Remedy = "find out why it ended; the releases that went back are not tried again by themselves"
	case r.Unclean > 0:
		e.Status, e.Summary = health.Degraded, fmt.Sprintf("boots in a row that did not end well: %d; after %d there is safe mode", r.Unclean, a.cfg.Boot.SafeAfter)
		e.Remedy = "find out why they ended; `bailey boot good` forgets them"
	case r.Good:
		e.Summary = "this boot went well so far"
	default:
		e.Summary = fmt.Sprintf("this boot counts as good when it lasts for %v", a.cfg.Boot.GoodAfter)
	}
	a.health.Set(e)
}

// leaveSafe says how safe mode is left.
func leaveSafe(r boot.Record) string {
	switch {
	case r.Safe == safeBooted:
		return "reboot without " + SafeBoot
	case r.SensorsOff() != "":
		return "upgrade bailey or the kernel, then reboot: sensors are tried again; or `bailey boot good`, and start the agent again"
	}
	return "take what did harm off or back (`bailey product stop`, `bailey update rollback`, or a release that comes in now), then reboot; or `bailey boot good`"
}

func backText(back []boot.Back) string {
	var out []string
	for _, b := range back {
		out = append(out, fmt.Sprintf("%s went back from %s to %s", b.Product, b.From, b.To))
	}
	return strings.Join(out, ", ")
}

// noteBoot writes down what was found when this boot began.
func (a *Agent) noteBoot() {
	if a.booted == nil {
		return
	}
	r := a.boot.Record()
	fields := map[string]any{"boot": a.bootID, "before_unclean": a.booted.Unclean, "unclean": r.Unclean}
	if r.Safe != "" {
		fields["safe"] = r.Safe
	}
	if r.SensorsOff() != "" {
		fields["sensors_off"] = r.SensorsOff()
	}
	if len(r.Back) > 0 {
		fields["back"] = r.Back
	}
	a.journal.Note(journal.KindBoot, fields)
}

// BootGood forgets unclean boots and leaves safe mode.
func (s *status) BootGood(context.Context) (*controlv1.Boot, error) {
	if r := s.boot.Record(); r.Safe == safeBooted {
		return nil, &control.Fault{Class: control.Refused, Message: safeBooted, Hint: leaveSafe(r)}
	}
	if err := s.boot.Forget(); err != nil {
		return nil, err
	}
	s.products.Release()
	(*Agent)(s).reportBoot()
	return s.bootMessage(), nil
}

func (s *status) bootMessage() *controlv1.Boot {
	r := s.boot.Record()
	m := &controlv1.Boot{Safe: r.Safe, SensorsOff: s.sensorsOff, Unclean: uint32(r.Unclean), SafeAfter: uint32(s.cfg.Boot.SafeAfter), Good: r.Good, LastGood: r.LastGood}
	if r.Safe != "" {
		m.Leave = leaveSafe(r)
	}
	for _, b := range r.Back {
		m.Back = append(m.Back, &controlv1.BootBack{Product: b.Product, From: b.From, To: b.To})
	}
	return m
}
