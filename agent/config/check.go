package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"bailey/agent/event"
	"bailey/agent/unlock/operatorkey"
	"bailey/internal/bytesize"
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
	minDeadline  = 5 * time.Millisecond
	maxDeadline  = time.Minute
	maxInFlight  = 1 << 16
	maxCrashLoop = 1 << 20
	maxUIDs      = 1 << 10 // users that products may need, one each
	minWindow    = time.Second
	maxWindow    = time.Hour
	maxDenies    = 10_000 // so many files are remembered of each product
	minLease     = time.Second
	maxLease     = 30 * 24 * time.Hour
	maxRules     = 1024
	minGood      = time.Second
	maxGood      = 24 * time.Hour
	minSafe      = 2 // the first takes back what was changed
	maxSafe      = 1000
	minRecorder  = bytesize.Size(1 << 20)
	maxRecorder  = bytesize.Size(64 << 30)
)

// check returns what is wrong with c, in the order of the file.
func (c *Config) check() []Problem {
	var out []Problem
	add := func(key, format string, args ...any) {
		out = append(out, Problem{Key: key, Text: fmt.Sprintf(format, args...)})
	}
	c.checkAgent(add)
	c.checkQuestions(add)
	c.checkKeeper(add)
	checkPaths(add, "watch.paths", c.Watch.Paths)
	checkPaths(add, "never_ask.extra", c.NeverAsk.Extra)
	checkPaths(add, "critical.extra", c.Critical.Extra)
	if c.Products.UIDBase < 1000 || uint64(c.Products.UIDBase)+maxUIDs >= 1<<31 {
		add("products.uid_base", "%d is out of range: use 1000 to %d, away from the system's and the users' ids", c.Products.UIDBase, 1<<31-maxUIDs-1)
	}
	c.checkBrake(add)
	c.checkMetrics(add)
	c.checkRecorder(add)
	c.checkRules(add)
	if e := c.Guard.Enabled; e != GuardOff && e != GuardOn && e != GuardAuto {
		add("guard.enabled", "%q is unknown: use auto, on or off", e)
	}
	c.checkOperator(add)
	c.checkUpdate(add)
	c.checkBoot(add)
	return out
}

func (c *Config) checkBoot(add func(key, format string, args ...any)) {
	checkDuration(add, "boot.good_after", c.Boot.GoodAfter, minGood, maxGood, `"2m"`)
	if n := c.Boot.SafeAfter; n < minSafe || n > maxSafe {
		add("boot.safe_after", "%d is out of range: use %d to %d", n, minSafe, maxSafe)
	}
}

func (c *Config) checkOperator(add func(key, format string, args ...any)) {
	for _, k := range c.Operator.Keys {
		if _, err := operatorkey.ParsePublic(k); err != nil {
			add("operator.keys", "%s", err)
		}
	}
	if c.Operator.KeyDir != "" {
		checkPaths(add, "operator.key_dir", []string{c.Operator.KeyDir})
	}
}

func (c *Config) checkRules(add func(key, format string, args ...any)) {
	checkDuration(add, "rules.max_lease", c.Rules.MaxLease, minLease, maxLease, `"24h"`)
	if n := c.Rules.PerProduct; n < 1 || n > maxRules {
		add("rules.per_product", "%d is out of range: use 1 to %d", n, maxRules)
	}
}

func (c *Config) checkBrake(add func(key, format string, args ...any)) {
	b := &c.Brake
	checkDuration(add, "brake.window", b.Window, minWindow, maxWindow, `"1m"`)
	for _, n := range []struct {
		key        string
		value, max int
	}{
		{"brake.package_files", b.PackageFiles, maxDenies},
		{"brake.files", b.Files, maxDenies},
		{"brake.critical", b.Critical, maxDenies},
		{"brake.exec_percent", b.ExecPercent, 100},
	} {
		if n.value < 1 || n.value > n.max {
			add(n.key, "%d is out of range: use 1 to %d", n.value, n.max)
		}
	}
}

func (c *Config) checkRecorder(add func(key, format string, args ...any)) {
	switch s := c.Recorder.Size; {
	case s.bad != "":
		add("recorder.size", "%q is not a size: write a whole number with KiB, MiB or GiB, e.g. \"64MiB\"", s.bad)
	case s.Size < minRecorder || s.Size > maxRecorder:
		add("recorder.size", "%s is out of range: use %s to %s", s, minRecorder, maxRecorder)
	}
	for _, w := range c.Recorder.Kinds {
		if _, err := event.ParseKind(w); err != nil {
			add("recorder.kinds", "%s", err)
		}
	}
}

// checkMetrics refuses an address that others than this machine could reach: metrics name products and say when they are
// weak, and nobody who reads them is asked who he is.
func (c *Config) checkMetrics(add func(key, format string, args ...any)) {
	listen := c.Metrics.Listen
	if listen == "" {
		return
	}
	at, err := netip.ParseAddrPort(listen)
	switch {
	case err != nil:
		add("metrics.listen", "%q is not an address with a port: write e.g. \"127.0.0.1:9464\" or \"[::1]:9464\"", listen)
	case !at.Addr().IsLoopback():
		add("metrics.listen", "%q can be reached from outside this machine: use a loopback address, e.g. \"127.0.0.1:%d\", and let a scraper on this machine carry the metrics further", listen, at.Port())
	case at.Port() == 0:
		add("metrics.listen", "%q has no port that a scraper could know: write e.g. \"127.0.0.1:9464\"", listen)
	}
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

func (c *Config) checkKeeper(add func(key, format string, args ...any)) {
	k := &c.Keeper
	if k.Default != "allow" && k.Default != "deny" {
		add("keeper.default", "%q is unknown: use allow or deny", k.Default)
	}
	checkDeadline(add, "keeper.kill_after", k.KillAfter)
	checkDeadline(add, "keeper.backoff_max", k.BackoffMax)
	if k.CrashLoop < 2 || k.CrashLoop > maxCrashLoop {
		add("keeper.crash_loop", "%d is out of range: use 2 to %d", k.CrashLoop, maxCrashLoop)
	}
}

// checkDuration adds what is wrong with a duration; examples are for who wrote something else.
func checkDuration(add func(key, format string, args ...any), key string, d Duration, least, most time.Duration, examples string) {
	switch {
	case d.bad != "":
		add(key, "%q is not a duration: write a number with its unit, e.g. %s", d.bad, examples)
	case d.Duration < least || d.Duration > most:
		add(key, "%s is out of range: use %s to %s", d, least, most)
	}
}

// checkDeadline adds what is wrong with a time that somebody waits for.
func checkDeadline(add func(key, format string, args ...any), key string, d Duration) {
	checkDuration(add, key, d, minDeadline, maxDeadline, `"500ms" or "2s"`)
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
		checkDeadline(add, d.key, d.value)
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
