package policy

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/pelletier/go-toml/v2"
)

// MaxSize bounds a policy's text.
const MaxSize = 4 << 20

// Parse reads a policy strictly: an unknown key, a bad glob or a digest of the wrong length is an error that names its
// line, and then there is no policy.
func Parse(text []byte) (*Policy, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("the policy has %d bytes, at most %d are read", len(text), MaxSize)
	}
	p := &Policy{Mode: Monitor, OnTimeout: Allow}
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return nil, describe(err)
	}
	if err := p.check(newPlaces(text)); err != nil {
		return nil, err
	}
	return p, nil
}

// describe puts the line in front of a TOML fault.
func describe(err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		line, _ := strict.Errors[0].Position()
		return fmt.Errorf("line %d: unknown key %s", line, strings.Join(strict.Errors[0].Key(), "."))
	}
	var syntax *toml.DecodeError
	if errors.As(err, &syntax) {
		line, _ := syntax.Position()
		return fmt.Errorf("line %d: %s", line, strings.TrimPrefix(syntax.Error(), "toml: "))
	}
	return fmt.Errorf("read policy: %w", err)
}

// places are the lines on which the tables of the two lists begin.
type places map[string][]int

func newPlaces(text []byte) places {
	out := make(places)
	n := 0
	for line := range bytes.Lines(text) {
		n++
		head, _, _ := strings.Cut(strings.ReplaceAll(string(line), " ", ""), "#")
		switch strings.TrimSpace(head) {
		case "[[rule]]":
			out["rule"] = append(out["rule"], n)
		case "[[scope]]":
			out["scope"] = append(out["scope"], n)
		}
	}
	return out
}

// at names the table that a fault is in; inline tables have no line of their own.
func (p places) at(list string, i int) string {
	if i < len(p[list]) {
		return fmt.Sprintf("line %d: ", p[list][i])
	}
	return fmt.Sprintf("%s %d: ", list, i+1)
}

func (p *Policy) check(where places) error {
	if !p.Mode.valid() {
		return fmt.Errorf("mode %q: known are monitor and lockdown", p.Mode)
	}
	if !p.OnTimeout.valid() {
		return fmt.Errorf("on_timeout %q: known are allow and deny", p.OnTimeout)
	}
	for i, s := range p.Scopes {
		if err := s.check(); err != nil {
			return fmt.Errorf("%s%w", where.at("scope", i), err)
		}
	}
	names := make(map[string]bool)
	for i := range p.Rules {
		r := &p.Rules[i]
		if err := r.check(); err != nil {
			return fmt.Errorf("%s%w", where.at("rule", i), err)
		}
		if names[r.Name] {
			return fmt.Errorf("%srule %q: an earlier rule has the same name", where.at("rule", i), r.Name)
		}
		names[r.Name] = true
	}
	return nil
}

func (m Mode) valid() bool   { return m == Monitor || m == Lockdown }
func (a Action) valid() bool { return a == Allow || a == Deny }

func (s *Scope) check() error {
	if !s.Mode.valid() {
		return fmt.Errorf("scope %q: mode %q: known are monitor and lockdown", s.Path, s.Mode)
	}
	return checkPath(s.Path)
}

func (r *Rule) check() error {
	if r.Name == "" || r.Name == DefaultRule {
		return fmt.Errorf("rule %q: give it a name of its own", r.Name)
	}
	if !r.Action.valid() {
		return fmt.Errorf("rule %q: action %q: known are allow and deny", r.Name, r.Action)
	}
	if len(r.Package)+len(r.SHA256)+len(r.Path)+len(r.UID) == 0 {
		return fmt.Errorf("rule %q: has no condition and would match everything; say path = [\"/**\"] if that is meant", r.Name)
	}
	for _, g := range r.Path {
		if err := checkPath(g); err != nil {
			return fmt.Errorf("rule %q: %w", r.Name, err)
		}
	}
	for _, g := range r.Package {
		if !doublestar.ValidatePattern(g) || g == "" {
			return fmt.Errorf("rule %q: package %q is not a glob", r.Name, g)
		}
	}
	for i, sum := range r.SHA256 {
		sum = strings.ToLower(sum)
		if b, err := hex.DecodeString(sum); err != nil || len(b) != 32 {
			return fmt.Errorf("rule %q: sha256 %q: must be 64 hexadecimal digits", r.Name, sum)
		}
		r.SHA256[i] = sum
	}
	return nil
}

// checkPath refuses globs that cannot match a path as the kernel names it.
func checkPath(glob string) error {
	if !doublestar.ValidatePattern(glob) {
		return fmt.Errorf("path %q is not a glob", glob)
	}
	if !path.IsAbs(glob) || path.Clean(glob) != glob {
		return fmt.Errorf("path %q: must be absolute, without .. and without a slash at the end; a directory is written /dir/**", glob)
	}
	return nil
}
