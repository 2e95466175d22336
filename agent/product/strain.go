package product

import (
	"fmt"
	"strings"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/product/cgroup"
	"bailey/agent/product/manifest"
	"bailey/internal/boottime"
)

// When a product is said to lack what it needs.
const (
	heldPercent   = 50 // of the spans in which it wanted the processor it was held back
	heldPeriods   = 10 // at least so many spans, else it hardly ran
	memoryPercent = 90 // of its limit is memory that cannot be given up
	calmLooks     = 3  // looks without strain until it is said to be over
)

// strain says what a product lacks, from what its control group counted between two looks; empty if nothing.
func strain(last, now cgroup.Stats, l manifest.Limits) string {
	var out []string
	if n := now.OOMKills - last.OOMKills; n > 0 {
		out = append(out, fmt.Sprintf("out of memory: %d of its processes were killed at the limit of %v", n, l.Memory))
	}
	if l.Memory > 0 && now.Working >= int64(l.Memory)/100*memoryPercent {
		out = append(out, fmt.Sprintf("at its memory limit of %v", l.Memory))
	}
	periods, held := now.Periods-last.Periods, now.Held-last.Held
	if periods >= heldPeriods && held*100 >= periods*heldPercent {
		out = append(out, fmt.Sprintf("at its limit of %v processors: held back in %d %% of the time", l.CPU, held*100/periods))
	}
	return strings.Join(out, "; ")
}

// Strain returns what a running product lacks now, of memory or processor time; empty if nothing is known to lack.
func (m *Manager) Strain(name string) string {
	u, err := m.unit(name)
	if err != nil {
		return ""
	}
	u.mu.Lock()
	g, last, limits, known := u.group, u.sampled, u.record.Grants.Limits, u.status.Strain
	u.mu.Unlock()
	if g == nil {
		return ""
	}
	if now := strain(last, g.Stats(), limits); now != "" {
		return now
	}
	return known
}

// strained judges a look, and tells when a product begins to lack something and when it has stopped to.
func (r *run) strained(now cgroup.Stats) {
	u := r.u
	u.mu.Lock()
	reason := strain(u.sampled, now, r.record.Grants.Limits)
	u.sampled = now
	old := u.status.Strain
	switch {
	case reason != "":
		u.calm = 0
	case old != "":
		if u.calm++; u.calm < calmLooks {
			reason = old
		}
	}
	if (reason == "") == (old == "") { // what is lacking may change in its numbers; that is no transition
		u.status.Strain = reason
		u.mu.Unlock()
		return
	}
	u.status.Strain = reason
	detail := u.detail(u.status.State, reason)
	u.mu.Unlock()
	if reason == "" {
		detail.Reason = "it has what it needs again"
	}
	u.tell(strainEntry(u.name, reason))
	u.m.cfg.Emit(&event.Event{Kind: event.Product, Time: boottime.Now(), Product: detail})
}

func strainEntry(name, reason string) health.Entry {
	e := health.Entry{Component: "product." + name + ".resources", Status: health.OK, Summary: "it has the memory and processor time that it needs"}
	if reason != "" {
		e.Status, e.Summary = health.Degraded, reason
		e.Remedy = fmt.Sprintf("grant more (`bailey product grant %s memory:N cpu:N`) if it is right to need it, or go back to a release that needs less", name)
	}
	return e
}

// watchGroup makes the unit know the control group of its present run; nil when it has ended.
func (u *unit) watchGroup(g *cgroup.Group) {
	var now cgroup.Stats
	if g != nil {
		now = g.Stats()
	}
	u.mu.Lock()
	u.group, u.sampled, u.calm = g, now, 0
	strained := u.status.Strain != ""
	u.status.Strain = ""
	u.mu.Unlock()
	if strained {
		u.tell(strainEntry(u.name, ""))
	}
}
