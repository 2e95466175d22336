package blockdelta_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"bailey/internal/blockdelta"
)

func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func apply(base, delta []byte, size int) ([]byte, error) {
	var out bytes.Buffer
	err := blockdelta.Apply(&out, bytes.NewReader(base), int64(len(base)), bytes.NewReader(delta), int64(size))
	return out.Bytes(), err
}

func TestMakeAndApply(t *testing.T) {
	t.Parallel()
	base := noise(1, 100_000)
	for name, tc := range map[string]struct {
		text  []byte
		limit int // bytes of delta
	}{
		"same":          {base, 16},
		"empty":         {nil, 1},
		"short":         {[]byte("short"), 16},
		"other":         {noise(2, 50_000), 50_016},
		"inserted":      {slices.Concat(base[:33_333], []byte("something new"), base[33_333:]), 64},
		"removed":       {slices.Concat(base[:10_001], base[20_002:]), 32},
		"changed_bytes": {slices.Concat(base[:50_000], []byte{^base[50_000]}, base[50_001:]), 32},
		"turned_round":  {slices.Concat(base[50_000:], base[:50_000]), 32},
		"repeated":      {bytes.Repeat(base[:2000], 20), 400},
		"zeros":         {make([]byte, 10_000), 10_016},
	} {
		var delta bytes.Buffer
		if err := blockdelta.Make(&delta, base, tc.text); err != nil {
			t.Fatal(err)
		}
		got, err := apply(base, delta.Bytes(), len(tc.text))
		if err != nil || !bytes.Equal(got, tc.text) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if delta.Len() > tc.limit {
			t.Errorf("%s: a delta of %d bytes, want at most %d", name, delta.Len(), tc.limit)
		}
		for i := range min(delta.Len(), 40) {
			if _, err := apply(base, delta.Bytes()[:i], len(tc.text)); !errors.Is(err, blockdelta.ErrDelta) {
				t.Errorf("%s: the first %d bytes: %v", name, i, err)
			}
		}
	}
}

func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	base := []byte("0123456789")
	for name, delta := range map[string][]byte{
		"empty": {}, "operation": {3, 1}, "outside": {1, 5, 6, 0}, "far_outside": {1, 255, 255, 255, 255, 255, 255, 255, 255, 127, 4, 0},
		"overflow": {1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 4, 0}, "too_much": {1, 0, 7, 0}, "too_little": {1, 0, 5, 0}, "nothing": {1, 0, 0, 0},
		"no_end": {1, 0, 6}, "cut_data": {2, 6, 'a', 'b'}, "huge": {2, 255, 255, 255, 255, 255, 255, 255, 255, 127, 'a'},
	} {
		if got, err := apply(base, delta, 6); !errors.Is(err, blockdelta.ErrDelta) && err == nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if got, err := apply(base, []byte{1, 4, 6, 0}, 6); err != nil || string(got) != "456789" {
		t.Errorf("%q, %v", got, err)
	}
}

// FuzzMake: what is made is applied, to any base.
func FuzzMake(f *testing.F) {
	f.Add([]byte("base"), []byte("text"), uint8(3))
	f.Fuzz(func(t *testing.T, base, text []byte, times uint8) {
		base = bytes.Repeat(base, int(times)) // blocks are large, and so must the base be
		text = slices.Concat(text, base[len(base)/3:], text)
		var delta bytes.Buffer
		if err := blockdelta.Make(&delta, base, text); err != nil {
			t.Fatal(err)
		}
		if got, err := apply(base, delta.Bytes(), len(text)); err != nil || !bytes.Equal(got, text) {
			t.Fatalf("%d bytes of %d, %v", len(got), len(text), err)
		}
	})
}

// FuzzApply: no panic, and never more than was asked for.
func FuzzApply(f *testing.F) {
	f.Add([]byte{1, 4, 6, 0})
	f.Add([]byte{2, 3, 'a', 'b', 'c', 1, 0, 3, 0})
	f.Fuzz(func(t *testing.T, delta []byte) {
		got, err := apply([]byte("0123456789"), delta, 6)
		if len(got) > 6 || err == nil && len(got) != 6 {
			t.Fatalf("%q, %v", got, err)
		}
	})
}
