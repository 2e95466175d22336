// Package bytesize is a number of bytes as people write it: "64MiB". It knows binary units only, because "64MB" means two
// things.
//
// Invariant: Parse reads what String writes, to the same number.
package bytesize

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, written with a binary unit ("64MiB") or none.
type Size int64

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// Parse reads "64MiB", "512KiB", "1GiB", "100B" or a plain number of bytes.
func Parse(s string) (Size, error) {
	num, unit := s, int64(1)
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(s, u.suffix); ok {
			num, unit = n, u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(num, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("size %q: want a whole number with KiB, MiB or GiB, like 64MiB", s)
	}
	if n > uint64(math.MaxInt64/unit) {
		return 0, fmt.Errorf("size %q is too large", s)
	}
	return Size(int64(n) * unit), nil
}

// UnmarshalText reads what Parse reads.
func (s *Size) UnmarshalText(b []byte) (err error) {
	*s, err = Parse(string(b))
	return err
}

// MarshalText writes the form that String returns.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String returns the size in its largest whole unit.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.bytes == 0 && u.bytes > 1 {
			return fmt.Sprintf("%d%s", int64(s)/u.bytes, u.suffix)
		}
	}
	return fmt.Sprintf("%dB", int64(s))
}
