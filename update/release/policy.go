package release

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"bailey/internal/strictjson"
)

// MaxPolicy bounds a recovery policy in bytes of JSON.
const MaxPolicy = 64 << 10

const (
	maxDisabled = 200
	maxReason   = 200
)

// Policy is the recovery policy: which releases no machine runs any more. Machines fetch it also in safe mode.
type Policy struct {
	Schema   int        `json:"schema"`
	Disabled []Disabled `json:"disabled"`
}

// Disabled is one release that must not run, and why.
type Disabled struct {
	Vendor  string  `json:"vendor"`
	Product string  `json:"product"`
	Kind    Kind    `json:"kind"`
	Version Version `json:"version"`
	Reason  string  `json:"reason"` // one line for operators
}

// ParsePolicy reads a recovery policy. What is not exactly one is an error.
func ParsePolicy(text []byte) (Policy, error) {
	var p Policy
	if err := strictjson.Unmarshal(text, strictjson.Limits{Bytes: MaxPolicy, Depth: 4}, &p); err != nil {
		return Policy{}, fmt.Errorf("read the recovery policy: %w", err)
	}
	return p, p.Check()
}

// JSON returns the policy as ParsePolicy reads it, or what is wrong with it.
func (p Policy) JSON() ([]byte, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	if p.Disabled == nil {
		p.Disabled = []Disabled{}
	}
	return plain(p)
}

// Check reports what is wrong with the policy.
func (p Policy) Check() error {
	if p.Schema != Schema {
		return fmt.Errorf("check the recovery policy: form %d is not known", p.Schema)
	}
	if len(p.Disabled) > maxDisabled {
		return fmt.Errorf("check the recovery policy: it disables %d releases, at most %d", len(p.Disabled), maxDisabled)
	}
	for _, d := range p.Disabled {
		s := Stream{Vendor: d.Vendor, Product: d.Product, Kind: d.Kind}
		if err := s.Check(); err != nil {
			return fmt.Errorf("check the recovery policy: %w", err)
		}
		if d.Version.IsZero() {
			return fmt.Errorf("check the recovery policy: it names no version of %s", s)
		}
		if d.Reason == "" || len(d.Reason) > maxReason || !utf8.ValidString(d.Reason) || strings.ContainsFunc(d.Reason, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("check the recovery policy: the reason for %s %s is one line of up to %d bytes", s, d.Version, maxReason)
		}
	}
	return nil
}

// Disables returns why a release must not run, if it must not.
func (p Policy) Disables(s Stream, v Version) (reason string, yes bool) {
	for _, d := range p.Disabled {
		if (Stream{Vendor: d.Vendor, Product: d.Product, Kind: d.Kind}) == s && d.Version.Compare(v) == 0 {
			return d.Reason, true
		}
	}
	return "", false
}
