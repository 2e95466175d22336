package sdk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	productv1 "bailey/api/product/v1"
	"bailey/api/product/v1/wire"
)

// What a rule can refuse, as RuleInstall.action has it.
const (
	RuleExec         = "exec"
	RuleOpenWrite    = "open_write"
	RuleUnlinkRename = "unlink_rename"
	RuleConnect      = "connect"
	RuleModuleLoad   = "module_load"
	RulePtrace       = "ptrace"
	RuleMemfdExec    = "memfd_exec"
	RuleMprotectExec = "mprotect_exec"
)

// RuleMatch says what a rule holds for: all that is set must fit.
type RuleMatch = productv1.RuleMatch

// RuleStatus is what became of a rule.
type RuleStatus = productv1.RuleStatus

// Rule is a standing deny: the kernel refuses what it names, with no round trip and whether or not the product lives, until its lease
// ends. Install it again under the same ID before that. It needs the grant rule:ACTION.
type Rule struct {
	ID     string // the product's own name of it
	Action string
	Match  *RuleMatch
	Lease  time.Duration
}

// RuleError is the agent's refusal of a rule.
type RuleError struct {
	ID     string
	Class  string // invalid, not_granted, critical, not_found, full, unsupported, busy or internal
	Reason string
}

// Error is the agent's sentence.
func (e *RuleError) Error() string { return "rule " + e.ID + " refused (" + e.Class + "): " + e.Reason }

// ErrNoRules says that the agent is too old to know rules.
var ErrNoRules = errors.New("this agent knows no rules")

// errRuleOver says that nobody replies any more.
var errRuleOver = errors.New("the conversation ended, or another agent took it over, before the reply; what holds is what `bailey rules` lists")

// ruleCalls are the requests that wait for a reply.
type ruleCalls struct {
	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan ruleReply
	over    bool
}

type ruleReply struct {
	status *RuleStatus
	err    error
}

func (c *ruleCalls) begin() (uint64, chan ruleReply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return 0, nil, errRuleOver
	}
	if c.waiting == nil {
		c.waiting = map[uint64]chan ruleReply{}
	}
	c.last++
	reply := make(chan ruleReply, 1)
	c.waiting[c.last] = reply
	return c.last, reply, nil
}

func (c *ruleCalls) reply(id uint64, r ruleReply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.waiting[id]; w != nil {
		delete(c.waiting, id)
		w <- r
	}
}

func (c *ruleCalls) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

// fail ends all that waits.
func (c *ruleCalls) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, w := range c.waiting {
		delete(c.waiting, id)
		w <- ruleReply{err: err}
	}
}

func (c *ruleCalls) end() {
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.fail(errRuleOver)
}

// InstallRule has a rule put in force and returns until when it holds, in nanoseconds since boot; a refusal is a *RuleError. Safe for
// concurrent use; not to be called in OnReady, before which nothing is read.
func (s *Session) InstallRule(ctx context.Context, r Rule) (until uint64, err error) {
	m := &productv1.RuleInstall{Id: r.ID, Action: r.Action, Lease: uint64(max(r.Lease, 0)), Match: r.Match}
	b, err := m.MarshalVT()
	if err != nil {
		return 0, fmt.Errorf("encode rule %s: %w", r.ID, err)
	}
	st, err := s.askRule(ctx, productv1.FrameRuleInstall, b)
	if err != nil {
		return 0, fmt.Errorf("install rule %s: %w", r.ID, err)
	}
	return st.GetUntil(), nil
}

// RemoveRule ends a rule of this product.
func (s *Session) RemoveRule(ctx context.Context, id string) error {
	b, err := (&productv1.RuleRemove{Id: id}).MarshalVT()
	if err != nil {
		return fmt.Errorf("encode the removal of rule %s: %w", id, err)
	}
	if _, err := s.askRule(ctx, productv1.FrameRuleRemove, b); err != nil {
		return fmt.Errorf("remove rule %s: %w", id, err)
	}
	return nil
}

func (s *Session) askRule(ctx context.Context, kind productv1.FrameKind, payload []byte) (*RuleStatus, error) {
	if len(payload) > productv1.MaxRule {
		return nil, fmt.Errorf("it has %d bytes, at most %d are taken", len(payload), productv1.MaxRule)
	}
	id, reply, err := s.rules.begin()
	if err != nil {
		return nil, err
	}
	defer s.rules.forget(id)
	if err := s.sock.Send(&productv1.Header{Kind: kind, ID: id}, payload, -1, wire.Block); err != nil {
		return nil, err
	}
	select {
	case r := <-reply:
		if r.err == nil && r.status.GetError() != "" {
			r.err = &RuleError{ID: r.status.GetId(), Class: r.status.GetError(), Reason: r.status.GetReason()}
		}
		return r.status, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ruleStatus is for the request that waits for it, or for the author's OnRule.
func (s *Session) ruleStatus(f wire.Frame) error {
	if f.ID == 0 {
		s.inbox.add(f)
		return nil
	}
	m := new(RuleStatus)
	if err := m.UnmarshalVT(f.Payload); err != nil {
		return fmt.Errorf("decode rule status: %w", err)
	}
	m.Id, m.Error, m.Reason = strings.Clone(m.GetId()), strings.Clone(m.GetError()), strings.Clone(m.GetReason())
	s.rules.reply(f.ID, ruleReply{status: m})
	return nil
}

// rule tells the author of a rule that ended.
func (d *deliverer) rule(payload []byte) error {
	m := new(RuleStatus)
	if err := m.UnmarshalVT(payload); err != nil {
		return fmt.Errorf("decode rule status: %w", err)
	}
	if d.s.product.OnRule != nil {
		d.s.product.OnRule(d.s, m)
	}
	return nil
}

// agentLacks is for an agent that is older than this package and lives without what was sent.
func (s *Session) agentLacks(payload []byte) error {
	m := new(productv1.Unsupported)
	if err := m.UnmarshalVT(payload); err != nil {
		return fmt.Errorf("decode unsupported: %w", err)
	}
	if k := productv1.FrameKind(m.GetFrameKind()); k == productv1.FrameRuleInstall || k == productv1.FrameRuleRemove {
		s.rules.fail(ErrNoRules)
	}
	return nil
}
