package probe

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"bailey/agent/health"
)

func cgroupFeatures() []Feature {
	var features []Feature
	for _, limit := range []struct{ controller, gives string }{
		{"memory", "a product cannot take the machine's memory"},
		{"pids", "a product cannot take all pids"},
		{"cpu", "a product cannot take all processors"},
	} {
		features = append(features, feature("cgroup."+limit.controller, limit.gives, "4.5",
			"mount a cgroup hierarchy with the "+limit.controller+" controller (version 2: also enable it in cgroup.subtree_control)",
			health.Degraded, func() error { return checkController(limit.controller) }))
	}
	return append(features, feature("cgroup.version_2", "products are frozen and killed as a whole", "4.5",
		"boot with systemd.unified_cgroup_hierarchy=1; version 1 hierarchies are used until then", health.OK, func() error {
			mounts, err := cgroupMounts()
			if err != nil {
				return err
			}
			if mounts.version2 == "" {
				return errors.New("no version 2 hierarchy is mounted")
			}
			return nil
		}))
}

// hierarchies are the cgroup hierarchies that are mounted.
type hierarchies struct {
	version2 string              // where, empty if nowhere
	version1 map[string][]string // mount point to its options
}

func cgroupMounts() (hierarchies, error) {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return hierarchies{}, fmt.Errorf("read the list of mounts: %w", err)
	}
	return parseMounts(string(data)), nil
}

// parseMounts reads the content of /proc/self/mounts.
func parseMounts(text string) hierarchies {
	found := hierarchies{version1: make(map[string][]string)}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		switch fields[2] {
		case "cgroup2":
			found.version2 = fields[1]
		case "cgroup":
			found.version1[fields[1]] = strings.Split(fields[3], ",")
		}
	}
	return found
}

func checkController(name string) error {
	mounts, err := cgroupMounts()
	if err != nil {
		return err
	}
	for _, options := range mounts.version1 {
		if slices.Contains(options, name) {
			return nil
		}
	}
	if mounts.version2 == "" {
		return fmt.Errorf("no hierarchy with the %s controller is mounted", name)
	}
	data, err := os.ReadFile(mounts.version2 + "/cgroup.controllers")
	if err != nil {
		return fmt.Errorf("read the controllers of the version 2 hierarchy: %w", err)
	}
	if !slices.Contains(strings.Fields(string(data)), name) {
		return fmt.Errorf("the %s controller is in no mounted hierarchy", name)
	}
	return nil
}
