package release

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Version is a release's version: one to six numbers, and possibly a pre-release such as rc.1. The zero value is no version.
type Version struct {
	numbers []uint32
	pre     string
}

const (
	maxVersion = 48 // bytes of text
	maxNumbers = 6
)

var preRelease = regexp.MustCompile(`^[a-z][a-z0-9]*(\.[a-z0-9]+)*$`)

// ParseVersion reads a version. There is one text for each: numbers have no leading zeros.
func ParseVersion(text string) (Version, error) {
	bad := func(why string) (Version, error) {
		return Version{}, fmt.Errorf("%.60q is no version: %s", text, why)
	}
	if len(text) > maxVersion {
		return bad(fmt.Sprintf("it has more than %d bytes", maxVersion))
	}
	numbers, pre, found := strings.Cut(text, "-")
	if found && !preRelease.MatchString(pre) {
		return bad("after the hyphen there is a word such as rc.1")
	}
	parts := strings.Split(numbers, ".")
	if len(parts) > maxNumbers {
		return bad(fmt.Sprintf("it has more than %d numbers", maxNumbers))
	}
	v := Version{pre: pre}
	for _, p := range parts {
		n, err := strconv.ParseUint(p, 10, 32)
		if err != nil || strconv.FormatUint(n, 10) != p {
			return bad("it is numbers without leading zeros, with dots between them")
		}
		v.numbers = append(v.numbers, uint32(n))
	}
	return v, nil
}

// IsZero reports whether v is no version.
func (v Version) IsZero() bool { return len(v.numbers) == 0 }

// String returns the text that ParseVersion reads; of no version it is empty.
func (v Version) String() string {
	parts := make([]string, len(v.numbers))
	for i, n := range v.numbers {
		parts[i] = strconv.FormatUint(uint64(n), 10)
	}
	text := strings.Join(parts, ".")
	if v.pre != "" {
		text += "-" + v.pre
	}
	return text
}

// Compare orders versions: number by number, where a missing one is 0, so 1.2 and 1.2.0 are equal; a pre-release comes before its release, and
// pre-releases are ordered word by word, numbers among them as numbers and before words.
func (v Version) Compare(w Version) int {
	for i := range max(len(v.numbers), len(w.numbers)) {
		if c := cmp.Compare(v.number(i), w.number(i)); c != 0 {
			return c
		}
	}
	switch {
	case v.pre == w.pre:
		return 0
	case v.pre == "":
		return 1
	case w.pre == "":
		return -1
	}
	return slices.CompareFunc(strings.Split(v.pre, "."), strings.Split(w.pre, "."), compareWord)
}

func (v Version) number(i int) uint32 {
	if i < len(v.numbers) {
		return v.numbers[i]
	}
	return 0
}

func compareWord(a, b string) int {
	x, xerr := strconv.ParseUint(a, 10, 64)
	y, yerr := strconv.ParseUint(b, 10, 64)
	switch {
	case xerr == nil && yerr == nil && x != y:
		return cmp.Compare(x, y)
	case xerr == nil && yerr != nil:
		return -1
	case xerr != nil && yerr == nil:
		return 1
	}
	return strings.Compare(a, b)
}

// MarshalText returns String.
func (v Version) MarshalText() ([]byte, error) {
	if v.IsZero() {
		return nil, fmt.Errorf("no version")
	}
	return []byte(v.String()), nil
}

// UnmarshalText is ParseVersion.
func (v *Version) UnmarshalText(text []byte) error {
	w, err := ParseVersion(string(text))
	if err == nil {
		*v = w
	}
	return err
}
