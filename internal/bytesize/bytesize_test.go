package bytesize_test

import (
	"testing"

	"bailey/internal/bytesize"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]bytesize.Size{"0": 0, "1": 1, "100B": 100, "1KiB": 1024, "64MiB": 64 << 20, "2GiB": 2 << 30} {
		got, err := bytesize.Parse(in)
		if err != nil || got != want {
			t.Errorf("%s: got %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "MiB", "-1", "1.5MiB", "64MB", "64 MiB", "99999999999GiB", "9223372036854775808"} {
		if got, err := bytesize.Parse(in); err == nil {
			t.Errorf("%q: accepted as %d", in, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0", "64MiB", "1GiB", "x", "99999999999GiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := bytesize.Parse(s)
		if err != nil {
			return
		}
		back, err := bytesize.Parse(n.String())
		if err != nil || back != n {
			t.Fatalf("%q is %d, and its text %q is %d, %v", s, n, n, back, err)
		}
	})
}
