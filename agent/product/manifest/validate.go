package manifest

import (
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"bailey/agent/event"
	"bailey/internal/pathname"
)

var (
	nameRE    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	versionRE = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+~-]{0,47}$`)
	settingRE = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
)

// Bounds that no manifest may leave; the operator's grant may be lower.
const (
	maxList    = 64
	maxString  = 4096
	minMemory  = 24 << 20 // the helper that builds the containment lives in it too
	maxMemory  = 64 << 30
	minPids    = 16
	maxPids    = 4096
	maxCPU     = 256
	minFiles   = 16
	maxFiles   = 1 << 16
	minState   = 64 << 10
	maxState   = 1 << 40
	minLog     = 64 << 10
	maxLog     = 1 << 30
	maxSetting = 256
)

// forbiddenTrees can be put into no product's root: they are the host's own control surface, or they hold every socket.
var forbiddenTrees = []string{"/proc", "/sys", "/dev"}
var forbiddenExact = []string{"/", "/run", "/var/run", "/var", "/tmp", "/root", "/home"}

// ownTrees are made by the containment itself.
var ownTrees = []string{"/product", "/state"}

type validator struct {
	places map[string]place
	faults []error
}

func (v *validator) fault(key, hint, format string, args ...any) {
	e := &Error{Key: key, Msg: fmt.Sprintf(format, args...), Hint: hint}
	for k := key; ; {
		if at, ok := v.places[k]; ok {
			e.Line, e.Column = at.line, at.column
			break
		}
		i := strings.LastIndexByte(k, '.')
		if i < 0 {
			break
		}
		k = k[:i]
	}
	v.faults = append(v.faults, e)
}

func (v *validator) manifest(m *Manifest) {
	if !nameRE.MatchString(m.Name) {
		v.fault("name", "like acme-scan: a lower-case letter, then up to 31 letters, digits or -", "%q is no product name", m.Name)
	}
	if !versionRE.MatchString(m.Version) {
		v.fault("version", "like 1.4.0: letters, digits and . + ~ -, at most 48", "%q is no version", m.Version)
	}
	if len(m.Description) > 500 || !printable(m.Description) {
		v.fault("description", "", "must be one line of at most 500 printable bytes")
	}
	v.run(&m.Run)
	v.request(&m.Request)
	v.limits(&m.Limits)
	v.settings(m.Settings)
}

func (v *validator) run(r *Run) {
	v.oneOf("run.transport", r.Transport, "seqpacket", "stream")
	v.paths("run.read", r.Read)
	v.paths("run.connect", r.Connect)
	for _, p := range r.Read {
		v.hostPath("run.read", p)
	}
	for _, p := range r.Connect {
		v.hostPath("run.connect", p)
	}
	v.command("run.command", r.Command, r.Read)
	if len(r.SelfTest) > 0 {
		v.command("run.self_test", r.SelfTest, r.Read)
	}
	if len(r.Network) > 0 {
		v.fault("run.network", "network = []", "network destinations cannot be granted in this version: every product runs without a network")
	}
}

// command checks a command that runs where read is to be read.
func (v *validator) command(key string, words, read []string) {
	if len(words) == 0 || len(words) > maxList {
		v.fault(key, strings.TrimPrefix(key, "run.")+` = ["./NAME"]`, "must have 1 to %d words", maxList)
		return
	}
	for _, w := range words {
		if len(w) > maxString || strings.ContainsRune(w, 0) {
			v.fault(key, "", "a word is longer than %d bytes or has a NUL in it", maxString)
		}
	}
	exe := words[0]
	switch {
	case exe == "":
		v.fault(key, "", "the first word is empty")
	case !filepath.IsAbs(exe):
		if !filepath.IsLocal(exe) || filepath.Clean(exe) == "." {
			v.fault(key, "", "%q leaves the product folder", exe)
		}
	case exe != filepath.Clean(exe):
		v.fault(key, filepath.Clean(exe), "%q is not a clean path", exe)
	case !slices.ContainsFunc(read, func(p string) bool { return pathname.Below(exe, p) }):
		v.fault(key, "add it or its directory to run.read", "%q is a host path that run.read does not list", exe)
	}
}

func (v *validator) request(r *Request) {
	r.See = v.kinds("request.see", r.SeeWords, event.Kinds())
	r.Decide = v.kinds("request.decide", r.DecideWords, []event.Kind{event.Exec, event.Open})
	v.paths("request.daemons", r.Daemons)
	v.paths("request.open_scope", r.OpenScope)
	v.oneOf("request.on_miss", r.OnMiss, "allow", "deny")
	v.oneOf("request.authority", r.Authority, "live", "shadow")
	asksOpen := slices.Contains(r.Decide, event.Open)
	if asksOpen && len(r.OpenScope) == 0 {
		v.fault("request.decide", `open_scope = ["/home"]`, "open is asked only within a scope, and open_scope is empty")
	}
	if !asksOpen && len(r.OpenScope) > 0 {
		v.fault("request.open_scope", "", `has no meaning without "open" in decide`)
	}
	if r.Deny && len(r.Decide) == 0 {
		v.fault("request.deny", "", "nothing to deny: decide is empty")
	}
	v.rules(r.Rules)
	if r.DenyCritical && !r.Deny && len(r.Rules) == 0 {
		v.fault("request.deny_critical", "deny = true", "needs deny or rules")
	}
	if r.OnMiss == "deny" && !r.Deny {
		v.fault("request.on_miss", "deny = true", "on_miss = \"deny\" needs deny")
	}
}

// RuleActions are what rules in the kernel can refuse; a test holds them equal to agent/rules.
var RuleActions = []string{"exec", "open_write", "unlink_rename", "connect", "module_load", "ptrace", "memfd_exec", "mprotect_exec"}

func (v *validator) rules(actions []string) {
	for i, a := range actions {
		v.oneOf("request.rules", a, RuleActions...)
		if slices.Contains(actions[:i], a) {
			v.fault("request.rules", "", "%q is listed twice", a)
		}
	}
}

func (v *validator) limits(l *Limits) {
	between(v, "limits.memory", l.Memory, minMemory, maxMemory)
	between(v, "limits.state", l.State, minState, maxState)
	between(v, "limits.log", l.Log, minLog, maxLog)
	between(v, "limits.pids", l.Pids, minPids, maxPids)
	between(v, "limits.files", l.Files, minFiles, maxFiles)
	if math.IsNaN(l.CPU) || l.CPU < 0.01 || l.CPU > maxCPU {
		v.fault("limits.cpu", "cores, like 0.5", "%v is not between 0.01 and %d", l.CPU, maxCPU)
	}
}

func between[T int | Size](v *validator, key string, got, low, high T) {
	if got < low || got > high {
		v.fault(key, "", "%v is not between %v and %v", got, low, high)
	}
}

func (v *validator) settings(s map[string]string) {
	if len(s) > maxSetting {
		v.fault("settings", "", "more than %d keys", maxSetting)
	}
	for k, val := range s {
		if !settingRE.MatchString(k) {
			v.fault("settings."+k, "lower-case letters, digits and _", "%q is no setting's name", k)
		}
		if err := CheckSetting(val); err != nil {
			v.fault("settings."+k, "", "%v", err)
		}
	}
}

// CheckSetting says whether value can be a setting's value.
func CheckSetting(value string) error {
	if len(value) > maxString || strings.ContainsRune(value, 0) {
		return fmt.Errorf("a setting is text of at most %d bytes without NUL", maxString)
	}
	return nil
}

func (v *validator) kinds(key string, words []string, allowed []event.Kind) []event.Kind {
	var out []event.Kind
	var known []string
	for _, k := range allowed {
		known = append(known, k.String())
	}
	for _, w := range words {
		i := slices.Index(known, w)
		switch {
		case i < 0:
			v.fault(key, "known: "+strings.Join(known, ", "), "%q is not possible here", w)
		case slices.Contains(out, allowed[i]):
			v.fault(key, "", "%q is listed twice", w)
		default:
			out = append(out, allowed[i])
		}
	}
	return out
}

func (v *validator) paths(key string, list []string) {
	if len(list) > maxList {
		v.fault(key, "", "more than %d paths", maxList)
	}
	seen := make(map[string]bool)
	for _, p := range list {
		if err := CheckPath(p); err != nil {
			v.fault(key, "", "%v", err)
		}
		if seen[p] {
			v.fault(key, "", "%q is listed twice", p)
		}
		seen[p] = true
	}
}

// CheckPath says whether p is an absolute, clean path that can be shown to an operator as it is.
func CheckPath(p string) error {
	switch {
	case !filepath.IsAbs(p):
		return fmt.Errorf("%q is not an absolute path", p)
	case p != filepath.Clean(p):
		return fmt.Errorf("%q is not clean: write %q", p, filepath.Clean(p))
	case len(p) > maxString || !printable(p):
		return fmt.Errorf("%q is too long or has unprintable characters", p)
	}
	return nil
}

func (v *validator) hostPath(key, p string) {
	if err := CheckHostPath(p); err != nil {
		v.fault(key, "name the very directory, file or socket that is needed", "%v", err)
	}
}

// CheckHostPath says whether the host's path p may be put into a product's root.
func CheckHostPath(p string) error {
	for _, t := range forbiddenTrees {
		if pathname.Below(p, t) {
			return fmt.Errorf("%q cannot be put into a product's root: %s is the host's own", p, t)
		}
	}
	if slices.Contains(forbiddenExact, p) {
		return fmt.Errorf("%q is too much of the host", p)
	}
	for _, t := range ownTrees {
		if pathname.Below(p, t) {
			return fmt.Errorf("%q is the containment's own place in a product's root", p)
		}
	}
	return nil
}

func (v *validator) oneOf(key, got string, words ...string) {
	if !slices.Contains(words, got) {
		v.fault(key, "one of: "+strings.Join(words, ", "), "%q is not possible", got)
	}
}

func printable(s string) bool {
	for _, r := range s {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}
