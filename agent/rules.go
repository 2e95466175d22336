package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"bailey/agent/control"
	"bailey/agent/event"
	"bailey/agent/guard"
	"bailey/agent/health"
	"bailey/agent/journal"
	"bailey/agent/product"
	"bailey/agent/product/grant"
	"bailey/agent/rules"
	controlv1 "bailey/api/control/v1"
	productv1 "bailey/api/product/v1"
	"bailey/internal/boottime"
	"bailey/internal/cgroup2"
	"bailey/internal/kerneldev"
)

// ruled are the sessions whose products asked for rules: they hear what becomes of them.
type ruled struct {
	mu       sync.Mutex
	sessions map[string]*session
	lines    map[string]*lines
}

// lines are what the journal got of one product's rules lately: a product that asks in a loop must not fill it.
type lines struct {
	since            time.Time
	refused, changed int
	left             int // not written since the last one that was
}

// The most lines of one product in a minute.
const (
	refusedLines = 10
	changedLines = 600
)

// write says whether one more line may be written, and how many were not since the last.
func (r *ruled) write(product string, refused bool) (ok bool, left int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lines[product]
	if l == nil {
		l = new(lines)
		r.lines[product] = l
	}
	if time.Since(l.since) > time.Minute {
		l.since, l.refused, l.changed = time.Now(), 0, 0
	}
	n, most := &l.changed, changedLines
	if refused {
		n, most = &l.refused, refusedLines
	}
	if *n++; *n > most {
		l.left++
		return false, 0
	}
	left, l.left = l.left, 0
	return true, left
}

// rulePins is where rules are pinned. Like the guard's, a directory of this agent's own on the machine.
func (a *Agent) rulePins() string {
	return "/sys/fs/bpf/" + product.ControlGroupOf(a.cfg.Agent.State) + "-rules"
}

func (a *Agent) newRules() (err error) {
	a.ruled.sessions, a.ruled.lines = map[string]*session{}, map[string]*lines{}
	c := a.cfg.Rules
	if !c.Enabled {
		a.health.Set(health.Entry{Component: rules.Component, Status: health.OK, Summary: "off by the configuration: products can install none"})
		return nil
	}
	a.rules, err = rules.New(rules.Config{
		Pins: a.rulePins(), Scratch: a.cfg.Agent.State, PerProduct: c.PerProduct, MaxLease: c.MaxLease.Duration,
		Critical: a.critical.Contains, CriticalBelow: a.critical.Below, Untouchable: a.ownGroups(),
		Emit: a.ruleHit, Changed: a.ruleChanged, Loaded: a.guardRules, Log: a.log, Health: a.health,
	})
	return err
}

// takeRules takes the rules over, once no other agent has them, or ends them where the operator wants none.
func (a *Agent) takeRules() {
	if a.rules != nil {
		a.rules.TakeOver()
		a.syncRules()
		return
	}
	if err := os.RemoveAll(a.rulePins()); err != nil {
		a.log.Warn("rules of an earlier agent stay in force", "err", err)
	}
}

// ownGroups are the control groups of the platform: its processes', and that of all products.
func (a *Agent) ownGroups() []string {
	out := []string{"/" + product.ControlGroupOf(a.cfg.Agent.State)}
	pids := []int{1, os.Getpid()}
	if a.parent != nil {
		pids = append(pids, a.parent.PID())
	}
	for _, pid := range pids {
		if group, err := cgroup2.Of(uint32(pid)); err == nil && group != "" && group != "/" {
			out = append(out, group)
		}
	}
	return out
}

// guardRules protects the rules' part in the kernel, which is loaded when the first product may have rules.
func (a *Agent) guardRules(pins string) error {
	select {
	case <-a.guarded:
	default:
		return nil // the guard starts with all that is there
	}
	if a.guard == nil {
		return nil
	}
	return a.guard.ProtectPinned(pins)
}

func (a *Agent) runRules(ctx context.Context) error {
	if a.rules == nil {
		<-ctx.Done()
		return nil
	}
	// What is critical is known first, or rules of an earlier agent would be judged by nothing.
	select {
	case <-a.critical.Tried():
	case <-ctx.Done():
		return nil
	}
	return a.rules.Run(ctx)
}

// endRules ends the rules with the agent, if it was meant to end.
func (a *Agent) endRules(failure error) error {
	if a.rules == nil {
		return nil
	}
	return a.end(a.rules, failure)
}

// syncRules says what the products may. Rules of one that was removed, stopped by the operator or not granted any more end at once.
func (a *Agent) syncRules() {
	if a.rules == nil || a.products == nil {
		return
	}
	all := map[string]rules.Grant{}
	for _, v := range a.products.List() {
		if v.Enabled && !v.Removed {
			all[v.Name] = ruleGrant(&v.Grants)
		}
	}
	a.rules.SetGrants(all)
}

func ruleGrant(g *grant.Grant) rules.Grant {
	out := rules.Grant{Critical: g.DenyCritical, Enforce: g.Live}
	for _, word := range g.Rules {
		if action, err := rules.ParseAction(word); err == nil { // the grant was checked
			out.Actions = append(out.Actions, action)
		}
	}
	return out
}

// grantRules says what a product may that is about to be spoken with.
func (a *Agent) grantRules(inst product.Instance) {
	if a.rules != nil {
		a.rules.SetGrant(inst.Name, ruleGrant(&inst.Grants))
	}
}

// ruleChanged writes down what happened to a rule, and tells its product, unless that is the reply to what it asked for.
func (a *Agent) ruleChanged(c rules.Change) {
	fields := map[string]any{
		"product": c.Rule.Product, "rule": c.Rule.ID, "action": c.Rule.Action.String(), "match": c.Rule.Match.String(), "what": c.What,
		"lease": c.Rule.Lease.String(), "hits": c.Hits,
	}
	if c.Reason != "" {
		fields["reason"] = strings.ToValidUTF8(c.Reason, "�")
	}
	ok, left := a.ruled.write(c.Rule.Product, c.What == rules.Refused)
	if left > 0 {
		fields["lines_left_out"] = left
	}
	if ok && c.What != rules.Renewed { // renewals are the daily round, and say nothing new
		a.journal.Note(journal.KindRule, fields)
	}
	if !slices.Contains([]string{rules.Removed, rules.Expired, rules.Disabled}, c.What) || c.Reason == byProduct {
		return
	}
	a.ruled.mu.Lock()
	s := a.ruled.sessions[c.Rule.Product]
	a.ruled.mu.Unlock()
	if s != nil {
		_ = s.conn.SendRuleStatus(0, &productv1.RuleStatus{Id: c.Rule.ID, State: c.What, Reason: c.Reason, Until: c.Until})
	}
}

// ruleHit tells all who may see findings what a rule refused, and the brake.
func (a *Agent) ruleHit(h rules.Hit) {
	f := &event.FindingDetail{
		Product: h.Rule.Product, Rule: h.Rule.ID, Title: h.Rule.Action.String() + " refused by a rule in the kernel", Severity: event.Medium,
		Action: "denied", File: hitFile(&h), Target: event.ProcessKey{PID: h.Process, Start: h.ProcessFrom},
		Fields: map[string]string{"source": "rule", "action": h.Rule.Action.String(), "match": h.Rule.Match.String()},
	}
	if !h.Refused {
		f.Title, f.Action = h.Rule.Action.String()+" would be refused by a rule of a product whose denies do not count", "would_deny"
	}
	if h.Destination.IsValid() {
		f.Fields["destination"] = h.Destination.String()
	}
	if h.Suppressed > 0 {
		f.Fields["suppressed"] = fmt.Sprint(h.Suppressed)
	}
	culprit := a.culprit(&guard.Attempt{PID: h.PID, Start: h.Start, Comm: h.Comm, UID: h.UID})
	if h.Refused && f.File.Ino != 0 {
		asked := event.Open
		if h.Rule.Action == rules.Exec || h.Rule.Action == rules.MemfdExec {
			asked = event.Exec
		}
		a.brake.Admit(&event.Denial{Product: h.Rule.Product, Fate: event.DenyStood, Asked: asked, Time: h.Time, File: f.File, Process: culprit})
	}
	a.hub.Publish(&event.Event{Kind: event.Finding, Time: h.Time, Process: culprit, Finding: f})
}

// hitFile is what is known of the file that a rule was hit for. Of one below a rule's directory the kernel tells the name alone: that of
// the directories in between is not known.
func hitFile(h *rules.Hit) event.File {
	if h.Ino == 0 && h.Name == "" {
		return event.File{}
	}
	if h.Rule.Match.File != "" && h.Target.Path != "" {
		return h.Target
	}
	f := event.File{Path: h.Name, Dev: kerneldev.Stat(h.Dev), Ino: h.Ino, UID: h.UID, Mode: 0o666}
	if h.Target.Path != "" && h.Rule.Match.Below != "" {
		f.Path = h.Target.Path + "/" + h.Name
	}
	return f
}

// ruleList shows rules to the operator.
type ruleList Agent

var _ control.Rules = (*ruleList)(nil)

// List returns the rules in force.
func (l *ruleList) List(context.Context) ([]*controlv1.Rule, error) {
	if l.rules == nil {
		return nil, nil
	}
	now := boottime.Now()
	var out []*controlv1.Rule
	for _, r := range l.rules.List() {
		out = append(out, &controlv1.Rule{
			Product: r.Rule.Product, Id: r.Rule.ID, Action: r.Rule.Action.String(), Match: r.Rule.Match.String(),
			Left: r.Until - min(r.Until, now), Until: r.Until, Hits: r.Hits, Enforced: r.Enforced,
		})
	}
	return out, nil
}

// errRulesOff says that the operator wants no rules.
var errRulesOff = errors.New("the operator's configuration allows no rules")
