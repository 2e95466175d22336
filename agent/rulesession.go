package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"bailey/agent/rules"
	productv1 "bailey/api/product/v1"
)

// rulesWaiting is how many requests for rules of one product may wait for the kernel.
const rulesWaiting = 64

// byProduct is why a rule ended that its product removed.
const byProduct = "the product removed it"

// ruleRequest is one thing that a product wants of its rules.
type ruleRequest struct {
	id      uint64
	install *productv1.RuleInstall // nil: remove
	remove  string
}

// InstallRule has a rule installed. It is not a fault of the product if it is not.
func (s *session) InstallRule(request uint64, m *productv1.RuleInstall) error {
	s.askRules(ruleRequest{id: request, install: m}, m.GetId())
	return nil
}

// RemoveRule has a rule removed.
func (s *session) RemoveRule(request uint64, m *productv1.RuleRemove) error {
	s.askRules(ruleRequest{id: request, remove: m.GetId()}, m.GetId())
	return nil
}

func (s *session) askRules(r ruleRequest, id string) {
	select {
	case s.rules <- r:
	default:
		s.replyRule(r.id, &productv1.RuleStatus{
			Id: clip(id), State: rules.Refused, Error: "busy", Reason: fmt.Sprintf("%d requests wait already", rulesWaiting),
		})
	}
}

// clip bounds what is said back of an id that may be no id.
func clip(id string) string { return strings.ToValidUTF8(id[:min(len(id), 64)], "") }

// serveRules does what the product wants of its rules, one after the other, until over. Each product has its own: none waits for another's.
func (s *session) serveRules(over <-chan struct{}) {
	a := s.agent
	for {
		select {
		case <-over:
			a.ruled.mu.Lock()
			if a.ruled.sessions[s.inst.Name] == s {
				delete(a.ruled.sessions, s.inst.Name)
			}
			a.ruled.mu.Unlock()
			return
		case r := <-s.rules:
			a.ruled.mu.Lock()
			a.ruled.sessions[s.inst.Name] = s
			a.ruled.mu.Unlock()
			s.replyRule(r.id, s.doRule(&r))
		}
	}
}

// replyRule says what became of a request. A product that does not read finds out by what holds.
func (s *session) replyRule(request uint64, m *productv1.RuleStatus) {
	_ = s.conn.SendRuleStatus(request, m)
}

func (s *session) doRule(r *ruleRequest) *productv1.RuleStatus {
	var until uint64
	var err error
	m := &productv1.RuleStatus{Id: clip(r.remove), State: rules.Removed}
	if r.install != nil {
		m.Id, m.State = clip(r.install.GetId()), rules.Installed
	}
	switch {
	case s.agent.rules == nil:
		err = errRulesOff
	case r.install != nil:
		var rule rules.Rule
		if rule, err = ruleFromProto(s.inst.Name, r.install); err == nil {
			until, err = s.agent.rules.Install(rule)
		}
	default:
		err = s.agent.rules.Remove(s.inst.Name, r.remove, byProduct)
	}
	m.Until = until
	if err != nil {
		m.State, m.Error, m.Reason = rules.Refused, ruleErrorWord(err), strings.ToValidUTF8(err.Error(), "�")
		s.agent.log.Debug("a rule was refused", "product", s.inst.Name, "rule", m.Id, "err", err)
	}
	return m
}

// ruleErrorWord is RuleStatus.error.
func ruleErrorWord(err error) string {
	for word, class := range map[string]error{
		"invalid": rules.ErrInvalid, "not_granted": rules.ErrNotGranted, "critical": rules.ErrCritical, "not_found": rules.ErrNotFound,
		"full": rules.ErrFull, "unsupported": rules.ErrUnsupported,
	} {
		if errors.Is(err, class) {
			return word
		}
	}
	switch {
	case errors.Is(err, errRulesOff):
		return "unsupported"
	case errors.Is(err, rules.ErrUnknown):
		return "not_found"
	}
	return "internal"
}

// ruleFromProto reads a product's rule. What it makes of rubbish, rules.Install refuses.
func ruleFromProto(product string, m *productv1.RuleInstall) (rules.Rule, error) {
	in := m.GetMatch()
	r := rules.Rule{Product: product, ID: m.GetId(), Match: rules.Match{
		File: in.GetFile(), Below: in.GetBelow(), Dev: in.GetDev(), Ino: in.GetIno(), Executable: in.GetExecutable(),
		Cgroup: in.GetCgroup(), CgroupID: in.GetCgroupId(),
	}}
	if err := rules.CheckID(r.ID); err != nil {
		return r, err
	}
	action, err := rules.ParseAction(m.GetAction())
	if err != nil {
		return r, fmt.Errorf("%w: %w", rules.ErrInvalid, err)
	}
	r.Action = action
	if m.GetLease() > uint64(1<<62) {
		return r, fmt.Errorf("%w: a lease of %d ns", rules.ErrInvalid, m.GetLease())
	}
	r.Lease = time.Duration(m.GetLease())
	low, high := in.GetPortLow(), in.GetPortHigh()
	if high == 0 {
		high = low
	}
	if low > 1<<16-1 || high > 1<<16-1 {
		return r, fmt.Errorf("%w: ports %d to %d", rules.ErrInvalid, low, high)
	}
	r.Match.PortLow, r.Match.PortHigh = uint16(low), uint16(high)
	if text := in.GetDestination(); text != "" {
		if r.Match.Destination, err = parseDestination(text); err != nil {
			return r, fmt.Errorf("%w: the destination %.80q is no address or block", rules.ErrInvalid, text)
		}
	}
	return r, nil
}

func parseDestination(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return netip.ParsePrefix(text)
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}
