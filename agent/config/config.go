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

	"bailey/agent/event"
	"bailey/internal/bytesize"
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
	Keeper    Keeper    `toml:"keeper"`
	Brake     Brake     `toml:"brake"`
	Metrics   Metrics   `toml:"metrics"`
	Recorder  Recorder  `toml:"recorder"`
	Guard     Guard     `toml:"guard"`
	Operator  Operator  `toml:"operator"`
	Rules     Rules     `toml:"rules"`
	Update    Update    `toml:"update"`
	Boot      Boot      `toml:"boot"`
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

// Keeper is what the agent's parent does when the agent cannot answer.
type Keeper struct {
	Default    string   `toml:"default" comment:"allow or deny: its answer to every question that the agent cannot answer"`
	KillAfter  Duration `toml:"kill_after" comment:"how long an agent that lives and does not answer is waited for before it is ended and started again"`
	CrashLoop  int      `toml:"crash_loop" comment:"ends of the agent within a minute after which it is not started again"`
	BackoffMax Duration `toml:"backoff_max" comment:"the longest pause before the agent is started again"`
}

// Brake is how much a live product may deny until its right to deny is taken from it.
type Brake struct {
	Window       Duration `toml:"window" comment:"how far back denies count"`
	PackageFiles int      `toml:"package_files" comment:"different files of packages that a product may deny within the window; per product: the grant deny_package_files:N"`
	Files        int      `toml:"files" comment:"different files in all that a product may deny within the window; per product: the grant deny_files:N"`
	Critical     int      `toml:"critical" comment:"denies of files of the critical set, none of which counts, that brake a product"`
	ExecPercent  int      `toml:"exec_percent" comment:"of all execs within the window, at least 20 of at least 5 programs of root, that a product may deny"`
}

// Metrics says where Prometheus may read what the agent counts, besides the control socket.
type Metrics struct {
	Listen string `toml:"listen" comment:"a port on loopback to serve GET /metrics on, e.g. \"127.0.0.1:9464\", readable for every user of this machine; empty: on the control socket alone"`
}

// Recorder is the flight recorder: the last events and answered questions, on disk below Agent.State.
type Recorder struct {
	Enabled bool     `toml:"enabled" comment:"keep recent events and answered questions on disk, for bailey history"`
	Size    Size     `toml:"size" comment:"the most that it takes on disk; the oldest part is removed for the newest"`
	Kinds   []string `toml:"kinds" comment:"what it keeps, of what products or readers of events asked for; verdicts, findings, products and health are always there to keep"`
}

// Guard is the protection of the platform against everybody else on the machine, root included.
type Guard struct {
	Enabled      string `toml:"enabled" comment:"off; on: an agent that cannot have it does not start; auto: it goes on without, and says so"`
	AllowTracing bool   `toml:"allow_tracing" comment:"others may load BPF programs that can signal any process or judge like the guard: tracers and other security products need it, and so does a way around the guard"`
	AllowKexec   bool   `toml:"allow_kexec" comment:"others may load another kernel to boot into"`
}

// Rules bounds the standing denies that products with a grant for it have in the kernel.
type Rules struct {
	Enabled    bool     `toml:"enabled" comment:"whether products can install any"`
	MaxLease   Duration `toml:"max_lease" comment:"the longest that a rule holds without being installed again"`
	PerProduct int      `toml:"per_product" comment:"how many rules one product can have"`
}

// Boot is what follows when this machine's boots do not end well.
type Boot struct {
	GoodAfter Duration `toml:"good_after" comment:"how long a boot, and what was changed in it, must last to be good; a change after which the machine goes down earlier is taken back"`
	SafeAfter int      `toml:"safe_after" comment:"boots in a row that were not good and did not end in order, after which no product is started and nobody is asked (safe mode)"`
}

// The words of Guard.Enabled.
const (
	GuardOff  = "off"
	GuardOn   = "on"
	GuardAuto = "auto"
)

// Operator says whose tokens unlock the guard. Who is not in it any more, unlocks nothing any more.
type Operator struct {
	Keys   []string `toml:"keys" comment:"public keys of operators, as bailey operator keygen prints them: tokens that they signed unlock the guard"`
	KeyDir string   `toml:"key_dir" comment:"a directory whose *.pub files hold more of them, one a line; read for each token; empty: none"`
	Seal   bool     `toml:"seal" comment:"while the guard is active, root changes products, their grants and settings only with a token of the scope state"`
}

// KindSet returns the kinds of a checked Recorder.
func (r *Recorder) KindSet() event.KindSet {
	var set event.KindSet
	for _, w := range r.Kinds {
		if k, err := event.ParseKind(w); err == nil { // checked
			set |= event.KindsOf(k)
		}
	}
	return set
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
		Keeper: Keeper{
			Default: "allow", KillAfter: Duration{Duration: 2 * time.Second}, CrashLoop: 5,
			BackoffMax: Duration{Duration: 5 * time.Second},
		},
		Brake: Brake{Window: Duration{Duration: time.Minute}, PackageFiles: 5, Files: 20, Critical: 3, ExecPercent: 5},
		Recorder: Recorder{
			Enabled: true, Size: Size{Size: 64 << 20},
			Kinds: []string{"exec", "fork", "exit", "verdict", "finding", "product", "health", "tamper"},
		},
		Guard:    Guard{Enabled: GuardOff},
		Operator: Operator{Keys: []string{}, KeyDir: "/etc/bailey/operators"},
		Rules:    Rules{Enabled: true, MaxLease: Duration{Duration: 24 * time.Hour}, PerProduct: 256},
		Update: Update{
			Mirrors: []string{}, Root: "/etc/bailey/update-root.json", Streams: []string{}, Interval: Duration{Duration: 5 * time.Minute},
			Lease: Duration{Duration: time.Hour}, Shadow: Duration{Duration: 2 * time.Minute}, Watch: Duration{Duration: 10 * time.Minute}, Windows: []string{}, Disk: Size{Size: 4 << 30},
		},
		Boot: Boot{GoodAfter: Duration{Duration: 2 * time.Minute}, SafeAfter: 3},
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

// Size is a number of bytes written as text, e.g. "64MiB".
type Size struct {
	bytesize.Size
	bad string // text that is no size; check reports it, because only there its line is known
}

// UnmarshalText reads a size with its unit.
func (s *Size) UnmarshalText(text []byte) error {
	v, err := bytesize.Parse(string(text))
	if err != nil {
		s.bad = string(text)
		return nil
	}
	*s = Size{Size: v}
	return nil
}

// MarshalText writes the size as UnmarshalText reads it.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

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
