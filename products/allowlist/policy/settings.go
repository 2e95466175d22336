package policy

import (
	"fmt"
	"strings"
)

// Apply returns a copy of p with the operator's settings laid over it. Their scopes and rules come before the policy's
// own. Keys that are not the policy's are left to others.
func (p *Policy) Apply(settings map[string]string) (*Policy, error) {
	out := &Policy{Mode: p.Mode, OnTimeout: p.OnTimeout}
	if mode := settings["mode"]; mode != "" {
		out.Mode = Mode(mode)
	}
	if action := settings["on_timeout"]; action != "" {
		out.OnTimeout = Action(action)
	}
	for _, s := range []struct {
		key  string
		mode Mode
	}{{"lockdown_paths", Lockdown}, {"monitor_paths", Monitor}} {
		for _, glob := range list(settings[s.key]) {
			out.Scopes = append(out.Scopes, Scope{Path: glob, Mode: s.mode})
		}
	}
	deny, allow, sums := list(settings["deny_paths"]), list(settings["allow_paths"]), list(settings["allow_sha256"])
	if len(deny) > 0 {
		out.Rules = append(out.Rules, Rule{Name: "setting:deny_paths", Action: Deny, Path: deny})
	}
	if len(sums) > 0 {
		out.Rules = append(out.Rules, Rule{Name: "setting:allow_sha256", Action: Allow, SHA256: sums})
	}
	if len(allow) > 0 {
		out.Rules = append(out.Rules, Rule{Name: "setting:allow_paths", Action: Allow, Path: allow})
	}
	if err := out.check(nil); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	out.Scopes = append(out.Scopes, p.Scopes...)
	out.Rules = append(out.Rules, p.Rules...)
	if err := out.check(nil); err != nil {
		return nil, err
	}
	return out, nil
}

// list cuts a setting at commas and white space.
func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' })
}
