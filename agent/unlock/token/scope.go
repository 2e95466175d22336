package token

import (
	"fmt"
	"slices"
	"strings"
)

// Scopes is a set of things that a token allows. The numbers are part of the format and never change their meaning.
type Scopes uint32

// The scopes.
const (
	Stop    Scopes = 1 << iota // end the agent and its keeper: signals, `systemctl stop` and `restart`, its control groups
	Upgrade                    // replace its programs, units and what its package owns, as a package manager does
	Config                     // change its configuration and the operators' keys
	State                      // change what it keeps: products, grants, the journal
	Inspect                    // read and trace its processes, as a debugger does
)

// AllScopes is every scope that this version knows.
const AllScopes = Stop | Upgrade | Config | State | Inspect

// scopeWords in the order of their bits, with what they mean.
func scopeWords() [][2]string {
	return [][2]string{
		{"stop", "end the agent and its keeper"},
		{"upgrade", "replace its programs and units, as a package manager does"},
		{"config", "change its configuration and the operators' keys"},
		{"state", "change what it keeps: products, grants, the journal"},
		{"inspect", "read and trace its processes, as a debugger does"},
	}
}

// Words returns the scopes' words in their order.
func (s Scopes) Words() []string {
	var out []string
	for i, w := range scopeWords() {
		if s&(1<<i) != 0 {
			out = append(out, w[0])
		}
	}
	return out
}

// String returns the words with commas.
func (s Scopes) String() string { return strings.Join(s.Words(), ",") }

// Means says in plain words what one scope's word allows.
func Means(word string) string {
	for _, w := range scopeWords() {
		if w[0] == word {
			return w[1]
		}
	}
	return ""
}

// ParseScopes reads words, each at most once.
func ParseScopes(words []string) (Scopes, error) {
	var out Scopes
	known := AllScopes.Words()
	for _, w := range words {
		i := slices.Index(known, w)
		if i < 0 {
			return 0, fmt.Errorf("%q is no scope: known are %s", w, strings.Join(known, ", "))
		}
		if out&(1<<i) != 0 {
			return 0, fmt.Errorf("scope %s is named twice", w)
		}
		out |= 1 << i
	}
	return out, nil
}
