package agent

import (
	"fmt"
	"slices"

	"bailey/agent/config"
	"bailey/internal/pathname"
)

// scope is where the operator's configuration admits questions about open at all.
func (a *Agent) scope() []string {
	paths := config.ExpandScope(a.cfg.Questions.OpenScope)
	if len(a.cfg.Watch.Paths) > 0 {
		// A scoped agent asks about what it was told to watch, wherever that lies.
		paths = append(paths, a.cfg.Watch.Paths...)
	}
	return paths
}

// intersect returns the directories that lie below one of each list, without those that lie below another of them.
func intersect(a, b []string) []string {
	var out []string
	for _, x := range a {
		for _, y := range b {
			switch {
			case pathname.Below(x, y):
				out = append(out, x)
			case pathname.Below(y, x):
				out = append(out, y)
			}
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return slices.DeleteFunc(slices.Clone(out), func(x string) bool {
		return slices.ContainsFunc(out, func(y string) bool { return x != y && pathname.Below(x, y) })
	})
}

// outside says which granted directories the configuration keeps a product from being asked about.
func outside(granted, configured []string) []string {
	var out []string
	for _, g := range granted {
		if len(intersect([]string{g}, configured)) == 0 {
			out = append(out, fmt.Sprintf("questions of kind open below %s: questions.open_scope of the agent's configuration does not admit them", g))
		}
	}
	return out
}
