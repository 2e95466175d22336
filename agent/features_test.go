package agent

import (
	"slices"
	"testing"
	"time"

	"bailey/agent/health"
	"bailey/agent/sensor/probe"
)

func TestReportMissingSaysWhatNoPartSays(t *testing.T) {
	t.Parallel()
	registry := health.NewRegistry()
	begin := time.Now()
	reportMissing(registry, probe.All())
	if took := time.Since(begin); took > 200*time.Millisecond {
		t.Errorf("the agent's start waits %v", took)
	}
	want := 0
	for _, f := range probe.All() {
		said := slices.ContainsFunc(registry.List(), func(e health.Entry) bool {
			return e.Component == f.Name && e.Status == f.Missing && e.Remedy != ""
		})
		lacking := f.Missing != health.OK && !saidByItsPart(f.Name) && !f.Probe().Supported
		if said != lacking {
			t.Errorf("%s: said %v, missing here %v", f.Name, said, lacking)
		}
		if lacking {
			want++
		}
	}
	if n := len(registry.List()); n != want {
		t.Errorf("%d entries, want %d: %+v", n, want, registry.List())
	}
}

// A feature that this machine lacks, whichever, under names of which one is told and the others are left to their parts.
func TestReportMissingLeavesTheRestToTheParts(t *testing.T) {
	t.Parallel()
	all := probe.All()
	i := slices.IndexFunc(all, func(f probe.Feature) bool { return !f.Probe().Supported })
	if i < 0 {
		t.Skip("this kernel has every feature")
	}
	var features []probe.Feature
	for _, name := range []string{"pidfd.invented", "bpf.invented", "fanotify.invented", "cgroup.invented"} {
		f := all[i]
		f.Name, f.Missing = name, health.Degraded
		features = append(features, f)
	}
	harmless := all[i]
	harmless.Name, harmless.Missing = "pidfd.harmless", health.OK
	registry := health.NewRegistry()
	reportMissing(registry, append(features, harmless))
	entries := registry.List()
	if len(entries) != 1 || entries[0].Component != "pidfd.invented" || entries[0].Status != health.Degraded || entries[0].Remedy == "" {
		t.Errorf("entries: %+v", entries)
	}
}
