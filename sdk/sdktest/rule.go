package sdktest

import (
	"fmt"
	"maps"
	"slices"

	productv1 "bailey/api/product/v1"
	"bailey/api/product/v1/wire"
	"bailey/sdk"
)

// rule grants what Options.Grants names and refuses the rest; nothing is enforced. Called under the lock.
func (a *Agent) rule(f *wire.Frame) error {
	st := &productv1.RuleStatus{State: "refused"}
	if f.Kind == productv1.FrameRuleRemove {
		m := new(productv1.RuleRemove)
		if err := m.UnmarshalVT(f.Payload); err != nil {
			return fmt.Errorf("decode the removal of a rule: %w", err)
		}
		st.Id, st.Error = m.GetId(), "not_found"
		if a.rules[m.GetId()] != nil {
			delete(a.rules, m.GetId())
			st.State, st.Error = "removed", ""
		}
	} else {
		m := new(productv1.RuleInstall)
		if err := m.UnmarshalVT(f.Payload); err != nil {
			return fmt.Errorf("decode rule: %w", err)
		}
		st.Id, st.Error = m.GetId(), "not_granted"
		if slices.Contains(a.o.Grants.GetRules(), m.GetAction()) {
			a.rules[m.GetId()] = m
			st.State, st.Error, st.Until = "installed", "", boottime()+m.GetLease()
		}
	}
	b, err := st.MarshalVT()
	if err != nil {
		return fmt.Errorf("encode rule status: %w", err)
	}
	return a.sock.Send(&productv1.Header{Kind: productv1.FrameRuleStatus, ID: f.ID}, b, -1, wire.Block)
}

// Rules returns the rules that the product has installed, by id. The agent in memory enforces none.
func (a *Agent) Rules() map[string]*productv1.RuleInstall {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.rules)
}

// EndRule tells the product that a rule ended: expired, disabled or removed.
func (a *Agent) EndRule(id, state string) {
	a.t.Helper()
	a.mu.Lock()
	delete(a.rules, id)
	a.mu.Unlock()
	a.send(productv1.Header{Kind: productv1.FrameRuleStatus}, &sdk.RuleStatus{Id: id, State: state, Until: boottime()}, -1)
}
