package rules

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"bailey/agent/health"
	"bailey/internal/bpflsm"
)

// TestSilentHook: a rule is not installed if the kernel does not call one of its hooks, and the operator hears which. What stands in for
// such a hook is one that another hook's program is attached in place of.
func TestSilentHook(t *testing.T) {
	registry := health.NewRegistry()
	r := newRules(t, func(c *Config) { c.Health = registry })
	to := rule("to", Connect, Match{Destination: netip.MustParsePrefix("127.0.0.9/32")})
	programs := r.kernel.Programs
	sends := programs["send"]
	programs["send"] = programs["load_module"]
	_, err := r.Install(to)
	programs["send"] = sends
	if !errors.Is(err, ErrUnsupported) || !errors.Is(err, bpflsm.ErrSilent) {
		t.Errorf("installed where the kernel does not call a hook: %v", err)
	}
	said := registry.List()
	if len(said) != 1 || said[0].Status != health.Degraded || !strings.HasSuffix(said[0].Summary, ": socket_sendmsg") ||
		!strings.Contains(said[0].Remedy, "ftrace_enabled") {
		t.Errorf("health %+v", said)
	}
	allowed(t, "not installed", connect("tcp4", "127.0.0.9:9")())
	install(t, r, to)
	refused(t, "installed", connect("tcp4", "127.0.0.9:9")())
	if now := registry.List(); len(now) != 1 || now[0].Status != health.OK {
		t.Errorf("health %+v", now)
	}
}
