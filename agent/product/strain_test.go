package product

import (
	"testing"

	"bailey/agent/product/cgroup"
	"bailey/agent/product/manifest"
)

func TestStrain(t *testing.T) {
	t.Parallel()
	limits := manifest.Limits{Memory: 100 << 20, CPU: 0.5}
	tests := map[string]struct {
		last, now cgroup.Stats
		want      string
	}{
		"nothing":           {cgroup.Stats{}, cgroup.Stats{}, ""},
		"busy_but_not_held": {cgroup.Stats{Periods: 100, Held: 90}, cgroup.Stats{Periods: 150, Held: 110}, ""},
		"held":              {cgroup.Stats{Periods: 100}, cgroup.Stats{Periods: 150, Held: 40}, "at its limit of 0.5 processors: held back in 80 % of the time"},
		"hardly_ran":        {cgroup.Stats{Periods: 100}, cgroup.Stats{Periods: 105, Held: 5}, ""},
		"reads_large_files": {cgroup.Stats{}, cgroup.Stats{Memory: 100 << 20, Working: 20 << 20, MemoryAt: 5000}, ""},
		"memory_full":       {cgroup.Stats{}, cgroup.Stats{Memory: 99 << 20, Working: 95 << 20}, "at its memory limit of 100MiB"},
		"a_child_was_killed": {cgroup.Stats{OOMKills: 1}, cgroup.Stats{OOMKills: 3, Periods: 20, Held: 20},
			"out of memory: 2 of its processes were killed at the limit of 100MiB; at its limit of 0.5 processors: held back in 100 % of the time"},
		"killed_before": {cgroup.Stats{OOMKills: 3}, cgroup.Stats{OOMKills: 3}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := strain(test.last, test.now, limits); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	if got := strain(cgroup.Stats{}, cgroup.Stats{Working: 1 << 40}, manifest.Limits{}); got != "" {
		t.Errorf("without limits: %q", got)
	}
}
