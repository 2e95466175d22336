package agent

import (
	"strings"
	"testing"
	"time"

	"bailey/agent/health"
	"bailey/update/client"
)

func TestLookEntry(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		look client.Look
		want health.Status
	}{
		"fine":           {client.Look{At: now, Tried: now}, health.OK},
		"a_moment_ago":   {client.Look{At: now.Add(-30 * time.Minute), Problem: "x", Failed: 5}, health.OK},
		"long_ago":       {client.Look{At: now.Add(-2 * time.Hour), Problem: "snapshot.json: expired", Failed: 8}, health.Degraded},
		"never_since":    {client.Look{Problem: "snapshot.json: expired", Failed: silentLooks}, health.Degraded},
		"just_started":   {client.Look{Problem: "no route to host", Failed: 1}, health.OK},
		"not_looked_yet": {client.Look{}, health.OK},
	} {
		e := lookEntry(c.look, time.Hour, now)
		if e.Status != c.want || (e.Status == health.Degraded) != strings.Contains(e.Summary, "expired") || (e.Status == health.Degraded) != (e.Remedy != "") {
			t.Errorf("%s: %+v", name, e)
		}
	}
}
