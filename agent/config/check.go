package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// The words that an open_scope may contain besides absolute paths.
const (
	ScopeHome      = "home"      // users' home directories
	ScopeTemporary = "temporary" // world-writable directories
	ScopeRemovable = "removable" // where removable media are mounted
)

// scopePaths gives the places of a scope word, none for what is no such word.
func scopePaths(word string) []string {
	switch word {
	case ScopeHome:
		return []string{"/home", "/root"}
	case ScopeTemporary:
		return []string{"/tmp", "/var/tmp", "/dev/shm"}
	case ScopeRemovable:
		return []string{"/media", "/run/media", "/mnt"}
	}
	return nil
}

// ExpandScope turns scope words and paths into paths, each once.
func ExpandScope(scope []string) []string {
	var paths []string
	for _, s := range scope {
		if filepath.IsAbs(s) {
			paths = append(paths, s)
			continue
		}
		paths = append(paths, scopePaths(s)...)
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// Bounds of what an operator may set.
const (
	minDeadline = 5 * time.Millisecond
	maxDeadline = time.Minute
	maxInFlight = 1 << 16
	maxUIDs     = 1 << 10 // users that products may need, one each
)

// check returns what is wrong with c, in the order of the file.
func (c *Config) check() []Problem {
	var out []Problem
	add := func(key, format string, args ...any) {
		out = append(out, Problem{Key: key, Text: fmt.Sprintf(format, args...)})
	}
	c.checkAgent(add)
	c.checkQuestions(add)
	checkPaths(add, "watch.paths", c.Watch.Paths)
	checkPaths(add, "never_ask.extra", c.NeverAsk.Extra)
	checkPaths(add, "critical.extra", c.Critical.Extra)
	if c.Products.UIDBase < 1000 || uint64(c.Products.UIDBase)+maxUIDs >= 1<<31 {
		add("products.uid_base", "%d is out of range: use 1000 to %d, away from the system's and the users' ids", c.Products.UIDBase, 1<<31-maxUIDs-1)
	}
	return out
}

func (c *Config) checkAgent(add func(key, format string, args ...any)) {
	checkPaths(add, "agent.state", []string{c.Agent.State})
	checkPaths(add, "agent.run", []string{c.Agent.Run})
	if c.Agent.State == c.Agent.Run {
		add("agent.run", "is the same directory as agent.state: use two, because run need not survive a reboot and state must")
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Agent.LogLevel) {
		add("agent.log_level", "%q is unknown: use debug, info, warn or error", c.Agent.LogLevel)
	}
}

func (c *Config) checkQuestions(add func(key, format string, args ...any)) {
	q := &c.Questions
	for _, d := range []struct {
		key   string
		value Duration
	}{
		{"questions.exec_deadline", q.ExecDeadline},
		{"questions.open_deadline", q.OpenDeadline},
		{"questions.critical_deadline", q.CriticalDeadline},
		{"questions.extend_cap", q.ExtendCap},
	} {
		if d.value.bad != "" {
			add(d.key, "%q is not a duration: write a number with its unit, e.g. \"500ms\" or \"2s\"", d.value.bad)
			continue
		}
		if d.value.Duration < minDeadline || d.value.Duration > maxDeadline {
			add(d.key, "%s is out of range: use %s to %s", d.value, minDeadline, maxDeadline)
		}
	}
	if longest := max(q.ExecDeadline.Duration, q.OpenDeadline.Duration, q.CriticalDeadline.Duration); q.ExtendCap.Duration < longest {
		add("questions.extend_cap", "%s is shorter than a deadline (%s): raise it to at least that", q.ExtendCap, longest)
	}
	if q.MaxInFlight < 1 || q.MaxInFlight > maxInFlight {
		add("questions.max_in_flight", "%d is out of range: use 1 to %d", q.MaxInFlight, maxInFlight)
	}
	for _, s := range q.OpenScope {
		if len(scopePaths(s)) > 0 {
			continue
		}
		if !filepath.IsAbs(s) {
			add("questions.open_scope", "%q is neither a place (home, temporary, removable) nor an absolute path; a network filesystem is named by its mount point", s)
			continue
		}
		checkPaths(add, "questions.open_scope", []string{s})
	}
}

// Check tests a Config that was changed after Load, e.g. by command-line flags; name stands for the file in the error.
func (c *Config) Check(name string) error {
	if problems := c.check(); len(problems) > 0 {
		return &Error{File: name, Problems: problems}
	}
	return nil
}

func checkPaths(add func(key, format string, args ...any), key string, paths []string) {
	for _, p := range paths {
		switch {
		case !filepath.IsAbs(p):
			add(key, "%q is not an absolute path", p)
		case filepath.Clean(p) != p:
			add(key, "%q is not in its shortest form: write %q", p, filepath.Clean(p))
		}
	}
}
