// Package config reads the operator's configuration of one agent: a strict TOML file, every key of which has a default.
// It only says what is wanted; it touches nothing but the file and applies nothing.
//
// Invariant: a Config that Load or Parse returned is complete and valid, so no reader of it checks or defaults anything.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
)

// DefaultPath is where the file is looked for when the operator names none; there it may be missing.
const DefaultPath = "/etc/bailey/agent.toml"

// Config is one agent's configuration. The comments on the fields are the documentation of the file.
type Config struct {
	Agent     Agent     `toml:"agent"`
	Questions Questions `toml:"questions"`
	Watch     Watch     `toml:"watch"`
	NeverAsk  NeverAsk  `toml:"never_ask"`
	Critical  Critical  `toml:"critical"`
	Cache     Cache     `toml:"cache"`
	Products  Products  `toml:"products"`
}

// Agent is where the agent keeps its things.
type Agent struct {
	State    string `toml:"state" comment:"what must survive a reboot: installed products and their grants, settings and state"`
	Run      string `toml:"run" comment:"what must not: the control socket, products' roots"`
	LogLevel string `toml:"log_level" comment:"debug, info, warn or error"`
}

// Questions bounds what waits for a verdict. A product's own budget is always Budget of the deadline.
type Questions struct {
	ExecDeadline     Duration `toml:"exec_deadline" comment:"when an exec that waits is decided at the latest; products have 80 % of it, then their on_miss counts"`
	OpenDeadline     Duration `toml:"open_deadline" comment:"the same for open"`
	CriticalDeadline Duration `toml:"critical_deadline" comment:"the same for files of the critical set, if shorter"`
	ExtendCap        Duration `toml:"extend_cap" comment:"the longest that a product can extend one question to"`
	MaxInFlight      int      `toml:"max_in_flight" comment:"questions waiting at once; beyond it they are allowed and counted as overload"`
	OpenScope        []string `toml:"open_scope" comment:"where open is asked at all: home, temporary, removable or absolute paths; a network filesystem only if its very mount point is named"`
}

// Budget is the share of a deadline, in percent, that a product has; the rest is the agent's. It is not configurable.
const Budget = 80

// Watch limits the agent to some mount points, so that a second agent can run scoped to a scratch directory.
type Watch struct {
	Paths []string `toml:"paths" comment:"mount points to ask about; empty: every local filesystem, present and future, and of network filesystems those named in an open scope"`
}

// NeverAsk extends the set of executables whose processes are never made to wait.
type NeverAsk struct {
	Extra []string `toml:"extra" comment:"executables never made to wait, besides the built-in ones (see bailey agent --print-config)"`
}

// Critical extends the computed set of files that no product may deny without the deny_critical grant.
type Critical struct {
	Extra []string `toml:"extra" comment:"files or directories besides the computed ones"`
}

// Cache is the verdict cache and the kernel's ignore marks.
type Cache struct {
	Enabled bool `toml:"enabled" comment:"remember allows that depend on the file alone"`
}

// Products is what all products of this machine share.
type Products struct {
	UIDBase uint32 `toml:"uid_base" comment:"products run as uid_base, uid_base+1, …; the range must belong to nobody else"`
}

// Default returns the configuration of an empty file.
func Default() *Config {
	return &Config{
		Agent: Agent{State: "/var/lib/bailey", Run: "/run/bailey", LogLevel: "info"},
		Questions: Questions{
			ExecDeadline:     Duration{Duration: 500 * time.Millisecond},
			OpenDeadline:     Duration{Duration: 200 * time.Millisecond},
			CriticalDeadline: Duration{Duration: 100 * time.Millisecond},
			ExtendCap:        Duration{Duration: 5 * time.Second},
			MaxInFlight:      4096,
			OpenScope:        []string{ScopeHome, ScopeTemporary, ScopeRemovable},
		},
		Watch:    Watch{Paths: []string{}},
		NeverAsk: NeverAsk{Extra: []string{}},
		Critical: Critical{Extra: []string{}},
		Cache:    Cache{Enabled: true},
		// Above every range that distributions, systemd, useradd and container managers hand out, below 2³¹.
		Products: Products{UIDBase: 1_900_000_000},
	}
}

// Load reads and checks the file at path. An empty path means DefaultPath, which may be missing.
func Load(path string) (*Config, error) {
	optional := path == ""
	if optional {
		path = DefaultPath
	}
	data, err := os.ReadFile(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return Default(), nil
	}
	if err != nil {
		return nil, &Error{File: path, Problems: []Problem{{Text: readProblem(err)}}}
	}
	return Parse(path, data)
}

func readProblem(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return "cannot be read: " + err.Error()
}

// NeverAskExecutables returns the built-in never-ask executables and the operator's own, each once.
func (c *Config) NeverAskExecutables() []string {
	out := append(builtinNeverAsk(), c.NeverAsk.Extra...)
	slices.Sort(out)
	return slices.Compact(out)
}

// builtinNeverAsk are the processes that a verdict, a log line or a mount may depend on, besides PID 1 and the platform,
// which are known by identity. Debian's systemd-udevd is a link to udevadm, so that is the executable the kernel names.
func builtinNeverAsk() []string {
	return []string{
		"/usr/lib/systemd/systemd",
		"/usr/lib/systemd/systemd-executor",
		"/usr/lib/systemd/systemd-journald",
		"/usr/lib/systemd/systemd-logind",
		"/usr/lib/systemd/systemd-udevd",
		"/usr/bin/udevadm",
		"/usr/bin/dbus-daemon",
		"/usr/bin/dbus-broker",
		"/usr/bin/dbus-broker-launch",
		"/usr/sbin/auditd",
		"/usr/sbin/rsyslogd",
	}
}

// Level returns the slog level of Agent.LogLevel.
func (c *Config) Level() slog.Level {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.Agent.LogLevel)); err != nil {
		return slog.LevelInfo // unreachable for a checked Config
	}
	return l
}

// Duration is a time.Duration written as text, e.g. "500ms". A bare number, whose unit nobody could know, is refused.
type Duration struct {
	time.Duration
	bad string // text that is no duration; check reports it, because only there its line is known
}

// UnmarshalText reads a duration with its unit.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		d.bad = string(text)
		return nil
	}
	*d = Duration{Duration: v}
	return nil
}

// MarshalText writes the duration as UnmarshalText reads it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Problem is one thing wrong in a file.
type Problem struct {
	Line int    // 0 when it belongs to no line
	Key  string // dotted, empty when unknown
	Text string
}

// Error says everything that is wrong with one configuration file.
type Error struct {
	File     string
	Problems []Problem
}

// Error lists the problems, each with its line as FILE:LINE.
func (e *Error) Error() string {
	var lines []string
	for _, p := range e.Problems {
		where := e.File
		if p.Line > 0 {
			where = fmt.Sprintf("%s:%d", e.File, p.Line)
		}
		if p.Key != "" {
			where += ": " + p.Key
		}
		lines = append(lines, where+": "+p.Text)
	}
	return strings.Join(lines, "\n")
}

// Hint says how an operator gets to a valid file.
func (e *Error) Hint() string {
	return "correct the file; `bailey agent --print-config` shows every key with its default"
}
