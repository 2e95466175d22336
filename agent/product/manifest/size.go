package manifest

import "bailey/internal/bytesize"

// Size is a number of bytes, written with a binary unit ("64MiB") or none.
type Size = bytesize.Size

// ParseSize reads "64MiB", "512KiB", "1GiB", "100B" or a plain number of bytes.
func ParseSize(s string) (Size, error) { return bytesize.Parse(s) }
