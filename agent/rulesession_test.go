package agent

import (
	"errors"
	"testing"
	"time"

	"bailey/agent/product/manifest"
	"bailey/agent/rules"
	productv1 "bailey/api/product/v1"
)

// TestRuleWords: manifests and the kernel have the same actions.
func TestRuleWords(t *testing.T) {
	t.Parallel()
	if len(manifest.RuleActions) != len(rules.Actions()) {
		t.Errorf("manifests have %v, rules %v", manifest.RuleActions, rules.Actions())
	}
	for i, a := range rules.Actions() {
		if manifest.RuleActions[i] != a.String() {
			t.Errorf("manifests have %s where rules have %s", manifest.RuleActions[i], a)
		}
	}
}

func TestRuleFromProto(t *testing.T) {
	t.Parallel()
	r, err := ruleFromProto("acme", &productv1.RuleInstall{Id: "a", Action: "connect", Lease: uint64(time.Hour), Match: &productv1.RuleMatch{Destination: "10.1.2.3", PortLow: 80}})
	if err != nil || r.Match.Destination.String() != "10.1.2.3/32" || r.Match.PortHigh != 80 || r.Check(time.Hour) != nil {
		t.Errorf("%+v: %v", r, err)
	}
	for name, m := range map[string]*productv1.RuleInstall{
		"nothing":     {},
		"action":      {Id: "a", Action: "fly"},
		"lease":       {Id: "a", Action: "exec", Lease: 1 << 63},
		"port":        {Id: "a", Action: "connect", Match: &productv1.RuleMatch{PortLow: 1 << 16}},
		"destination": {Id: "a", Action: "connect", Match: &productv1.RuleMatch{Destination: "example.org"}},
	} {
		if _, err := ruleFromProto("acme", m); !errors.Is(err, rules.ErrInvalid) || ruleErrorWord(err) != "invalid" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzRuleInstall reads what a hostile product may send.
func FuzzRuleInstall(f *testing.F) {
	for _, m := range []*productv1.RuleInstall{
		{Id: "a", Action: "exec", Lease: uint64(time.Hour), Match: &productv1.RuleMatch{File: "/opt/x", Dev: 1, Ino: 2}},
		{Id: "b", Action: "connect", Lease: 1, Match: &productv1.RuleMatch{Destination: "::/0", PortLow: 25, PortHigh: 26, CgroupId: 7}},
		{Id: "\xff", Action: "\xff", Lease: ^uint64(0), Match: &productv1.RuleMatch{Below: "/\x00", Executable: "..", Cgroup: "/a"}},
		{Id: "c", Action: "connect", Lease: 1 << 40, Match: &productv1.RuleMatch{Destination: "fe80::1%eth0/64"}},
	} {
		b, err := m.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0x22, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(productv1.RuleInstall)
		if m.UnmarshalVT(b) != nil {
			return
		}
		r, err := ruleFromProto("acme", m)
		if err == nil {
			err = r.Check(24 * time.Hour)
		}
		if err != nil {
			if word := ruleErrorWord(err); word != "invalid" {
				t.Errorf("%v is called %s", err, word)
			}
			return
		}
		if again, err := ruleFromProto("acme", m); err != nil || again != r {
			t.Errorf("%+v, then %+v: %v", r, again, err)
		}
		_ = r.Match.String()
	})
}
