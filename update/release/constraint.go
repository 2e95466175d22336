package release

import (
	"fmt"
	"strings"
)

// Constraint is what a version must fulfil: comparisons, all of which hold. The zero value holds for every version.
type Constraint struct {
	all []comparison
}

type comparison struct {
	op string
	v  Version
}

const (
	maxConstraint  = 200 // bytes of text
	maxComparisons = 8
)

// operators are the comparisons there are; a longer one comes before what it begins with.
var operators = []string{">=", "<=", ">", "<", "="}

// ParseConstraint reads comparisons that are separated by single spaces, such as ">=7.1.0 <8". A pre-release counts as what it is in the
// order of versions: 8-rc.1 fulfils "<8".
func ParseConstraint(text string) (Constraint, error) {
	bad := func(why string) (Constraint, error) {
		return Constraint{}, fmt.Errorf("%.80q is no constraint: %s", text, why)
	}
	if len(text) > maxConstraint {
		return bad(fmt.Sprintf("it has more than %d bytes", maxConstraint))
	}
	parts := strings.Split(text, " ")
	if len(parts) > maxComparisons {
		return bad(fmt.Sprintf("it has more than %d comparisons", maxComparisons))
	}
	var c Constraint
	for _, p := range parts {
		one, err := parseComparison(p)
		if err != nil {
			return bad(err.Error())
		}
		c.all = append(c.all, one)
	}
	return c, nil
}

func parseComparison(text string) (comparison, error) {
	for _, op := range operators {
		if rest, found := strings.CutPrefix(text, op); found {
			v, err := ParseVersion(rest)
			return comparison{op: op, v: v}, err
		}
	}
	return comparison{}, fmt.Errorf("%.60q does not begin with one of %s", text, strings.Join(operators, " "))
}

// Holds reports whether v fulfils the constraint.
func (c Constraint) Holds(v Version) bool {
	for _, one := range c.all {
		d := v.Compare(one.v)
		ok := one.op == "=" && d == 0 || one.op == ">" && d > 0 || one.op == "<" && d < 0 || one.op == ">=" && d >= 0 || one.op == "<=" && d <= 0
		if !ok {
			return false
		}
	}
	return true
}

// String returns the text that ParseConstraint reads.
func (c Constraint) String() string {
	parts := make([]string, len(c.all))
	for i, one := range c.all {
		parts[i] = one.op + one.v.String()
	}
	return strings.Join(parts, " ")
}

// MarshalText returns String.
func (c Constraint) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText is ParseConstraint.
func (c *Constraint) UnmarshalText(text []byte) error {
	d, err := ParseConstraint(string(text))
	if err == nil {
		*c = d
	}
	return err
}
