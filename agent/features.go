package agent

import (
	"strings"

	"bailey/agent/health"
	"bailey/agent/sensor/probe"
)

// reportMissing sets a health entry for each feature that this kernel lacks, that Bailey is worse off without, and that no
// part of the agent says itself: the sensors know what they were refused, and the products' manager what it cannot limit.
// `bailey doctor` probes all of them.
func reportMissing(registry *health.Registry, all []probe.Feature) {
	var missing []probe.Feature
	for _, f := range all {
		if f.Missing != health.OK && !saidByItsPart(f.Name) && !f.Probe().Supported {
			missing = append(missing, f)
		}
	}
	probe.Report(registry, missing)
}

func saidByItsPart(feature string) bool {
	family, _, _ := strings.Cut(feature, ".")
	switch family {
	case "fanotify", "bpf", "cgroup":
		return true
	}
	return false
}
