package decide

import (
	"path/filepath"
	"strings"
	"testing"

	"bailey/sdk"
)

// TestPolicyReload: a policy with a fault changes nothing, a good one counts at once and clears the agent's cache.
func TestPolicyReload(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	allow := "[[rule]]\nname = 'all'\naction = 'allow'\npath = ['/**']\n"
	m := newMachine(t, setup{policy: allow, settings: map[string]string{"mode": "lockdown"}, state: state})
	path := m.file(t, "x", "x")
	if got := m.Ask(sdk.Exec, asker(0), path); got != sdk.Allow {
		t.Fatalf("allowed by path: %v", got)
	}
	write(t, m.conf, "[[rule]]\nnonsense\n")
	if f := m.WaitFindings(1); f[0].Rule != rulePolicy || !strings.Contains(f[0].Title, "line 2") {
		t.Errorf("finding %+v", f[0])
	}
	if got := m.Ask(sdk.Exec, asker(0), path); got != sdk.Allow {
		t.Errorf("after a policy with a fault: %v", got)
	}
	before := m.Subscription()
	write(t, m.conf, "[[rule]]\nname = 'none'\naction = 'deny'\npath = ['/**']\n")
	m.eventually(t, "a new subscription", func() bool { return m.Subscription() != before })
	if got := m.Ask(sdk.Exec, asker(0), path); got != sdk.Deny {
		t.Errorf("after the new policy: %v", got)
	}

	// A new release with a faulty policy goes on with the last good one.
	next := newMachine(t, setup{policy: "mode = 'x'\n", settings: map[string]string{"mode": "lockdown"}, state: state})
	if got := next.Ask(sdk.Exec, asker(0), next.file(t, "x", "x")); got != sdk.Deny {
		t.Errorf("with the last good policy: %v", got)
	}
	if f := next.WaitFindings(1); f[0].Rule != rulePolicy || f[0].Severity != sdk.High {
		t.Errorf("finding %+v", f[0])
	}
}

func TestFaultyFirstPolicyEndsTheProduct(t *testing.T) {
	t.Parallel()
	conf := filepath.Join(t.TempDir(), "policy.toml")
	write(t, conf, "mode = 'x'\n")
	d, err := New(Config{PolicyFile: conf, Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.firstPolicy(); err == nil || !strings.Contains(err.Error(), "known are monitor and lockdown") {
		t.Errorf("got %v", err)
	}
}
