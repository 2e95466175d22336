package e2e

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"

	"bailey/internal/roottest"
)

// TestSelftestPasses runs the self-test that operators run, and looks at each of its lines.
func TestSelftestPasses(t *testing.T) {
	roottest.Require(t, "mounts a scratch filesystem and starts an agent")
	out, err := exec.Command(filepath.Join(built, "bailey"), "selftest", "--json").Output()
	if err != nil {
		t.Errorf("bailey selftest: %v", err)
	}
	want := []string{
		"agent_serves", "product_runs_contained", "event_seen", "unknown_binary_refused", "descriptor_readable",
		"cached_allow_not_asked", "changed_file_asked_again", "late_product_defaulted", "agent_stops",
	}
	checks := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	for i, line := range checks {
		var r struct {
			Name   string
			OK     bool
			Detail string
			Took   int64
		}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if i >= len(want) || r.Name != want[i] || !r.OK || r.Took <= 0 {
			t.Errorf("check %d: %s", i, line)
		}
	}
	if n := len(checks); n != len(want) {
		t.Errorf("%d checks, want %d", n, len(want))
	}
}
