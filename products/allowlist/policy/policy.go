package policy

import (
	"errors"
	"fmt"

	"github.com/bmatcuk/doublestar/v4"
)

// Mode says what happens to what no rule allows.
type Mode string

// The modes.
const (
	Monitor  Mode = "monitor"  // it runs, and a finding says that it would be denied
	Lockdown Mode = "lockdown" // it is denied
)

// Action is what a rule does with what it matches.
type Action string

// The actions.
const (
	Allow Action = "allow"
	Deny  Action = "deny"
)

// Rule matches when all of its conditions do; a condition that lists several values matches when one of them does.
type Rule struct {
	Name    string   `toml:"name"`
	Action  Action   `toml:"action"`
	Package []string `toml:"package"` // globs of package names; allow needs the recorded digest to be the file's
	SHA256  []string `toml:"sha256"`  // of the whole file, in hexadecimal
	Path    []string `toml:"path"`    // globs; ** crosses directories
	UID     []uint32 `toml:"uid"`     // the asker's real user id
}

// Scope gives paths a mode of their own.
type Scope struct {
	Path string `toml:"path"` // a glob
	Mode Mode   `toml:"mode"`
}

// Policy is what the operator wants. The zero value allows nothing and is not usable; see Parse.
type Policy struct {
	Mode      Mode    `toml:"mode"`       // where no scope matches; default monitor
	OnTimeout Action  `toml:"on_timeout"` // for files that cannot be judged in time, in lockdown; default allow
	Scopes    []Scope `toml:"scope"`      // the first that matches counts
	Rules     []Rule  `toml:"rule"`       // the first that matches decides
}

// Subject is who asks about what.
type Subject struct {
	Path  string // empty when it could not be found out
	UID   uint32
	NoUID bool // the asker is not known
}

// Package is what the package database says about a path, and how the file compares.
type Package struct {
	Name     string // empty: no package owns the path
	Verified bool   // the file is what the package recorded
	// Passing says that the file was accepted only because a package manager is at work: true now, not later.
	Passing bool
	Reason  string // why it is not verified, for a human
}

// Facts answers what rules ask about the file's content. An error means that it could not be found out now.
type Facts interface {
	SHA256() (string, error)
	Package() (Package, error)
}

// ErrUndecided says that a rule could not be tried because a fact is missing. What to do then is the policy's OnTimeout.
var ErrUndecided = errors.New("not decided")

// Verdict is what the rules say.
type Verdict struct {
	Allow bool
	Rule  string // the rule that decided; "default" if none matched
	// FileOnly says that every asker, and every name of the same file, would get the same allow: it may be cached.
	FileOnly bool
	Package  Package // what is known of it; zero if no rule asked
}

// DefaultRule names the verdict of a file that no rule matched.
const DefaultRule = "default"

// ModeOf returns the mode that counts for a path.
func (p *Policy) ModeOf(path string) Mode {
	for _, s := range p.Scopes {
		if match(s.Path, path) {
			return s.Mode
		}
	}
	return p.Mode
}

// Decide tries the rules in order.
//
// A verdict is the file's alone (FileOnly) when an allow rule without path and uid decided, and no deny rule that another
// name or asker could have met was passed on the way. A package rule counts as one without path although a package owns
// names: what it allows is content that a package brought, and that is the same under every name of the file.
func (p *Policy) Decide(s Subject, facts Facts) (Verdict, error) {
	var v Verdict
	dependent := false
	for i := range p.Rules {
		r := &p.Rules[i]
		if (s.NoUID && len(r.UID) > 0) || (s.Path == "" && len(r.Path)+len(r.Package) > 0) {
			return v, fmt.Errorf("%w: rule %s: the asker or the name of the file is not known", ErrUndecided, r.Name)
		}
		if !r.matchesSubject(s) {
			dependent = dependent || r.Action == Deny
			continue
		}
		matched, err := r.matchesContent(facts, &v)
		if err != nil {
			return v, fmt.Errorf("%w: rule %s: %w", ErrUndecided, r.Name, err)
		}
		if !matched {
			// A package is found by the file's name, so another name of it could have met this rule.
			dependent = dependent || (r.Action == Deny && len(r.Package) > 0)
			continue
		}
		v.Rule, v.Allow = r.Name, r.Action == Allow
		v.FileOnly = v.Allow && !dependent && len(r.Path) == 0 && len(r.UID) == 0 && !(len(r.Package) > 0 && v.Package.Passing)
		return v, nil
	}
	v.Rule = DefaultRule
	return v, nil
}

func (r *Rule) matchesSubject(s Subject) bool {
	return (len(r.Path) == 0 || anyMatch(r.Path, s.Path)) && (len(r.UID) == 0 || contains(r.UID, s.UID))
}

func (r *Rule) matchesContent(facts Facts, v *Verdict) (bool, error) {
	if len(r.Package) > 0 {
		pkg, err := facts.Package()
		if err != nil {
			return false, err
		}
		v.Package = pkg
		owned := (pkg.Name != "" || pkg.Passing) && anyMatch(r.Package, pkg.Name)
		if !owned || (r.Action == Allow && !pkg.Verified) {
			return false, nil
		}
	}
	if len(r.SHA256) > 0 {
		sum, err := facts.SHA256()
		if err != nil {
			return false, err
		}
		return contains(r.SHA256, sum), nil
	}
	return true, nil
}

func anyMatch(globs []string, s string) bool {
	for _, g := range globs {
		if match(g, s) {
			return true
		}
	}
	return false
}

// match matches a glob that Parse has accepted.
func match(glob, s string) bool { return doublestar.MatchUnvalidated(glob, s) }

func contains[T comparable](list []T, v T) bool {
	for _, x := range list {
		if x == v {
			return true
		}
	}
	return false
}
