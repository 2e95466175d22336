package process

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// ringOf returns a ring of a size with records from a position on, as the kernel lays them out, and the position behind them.
func ringOf(size int, at uint64, headers []uint32, fill byte) (records, uint64) {
	once := make([]byte, size)
	put := func(position uint64, b []byte) {
		for i := range b {
			once[(position+uint64(i))%uint64(size)] = b[i]
		}
	}
	for _, h := range headers {
		length := uint64(h &^ (ringBusy | ringDiscarded))
		put(at, binary.LittleEndian.AppendUint32(nil, h))
		put(at+ringHeaderSize, bytes.Repeat([]byte{fill}, int(length)))
		at += ringHeaderSize + (length+7)&^7
	}
	return records{twice: append(once, once...)}, at
}

func TestWalkReadsWhatTheKernelWrote(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		at      uint64
		headers []uint32
		want    []int
	}{
		"nothing":            {0, nil, nil},
		"one":                {0, []uint32{5}, []int{5}},
		"empty":              {8, []uint32{0, 3}, []int{0, 3}},
		"over_the_end":       {1<<40 + 4096 - 16, []uint32{40, 8}, []int{40, 8}},
		"discarded":          {0, []uint32{9 | ringDiscarded, 16}, []int{16}},
		"busy_ends_it":       {0, []uint32{8, 24 | ringBusy, 8}, []int{8}},
		"exactly_full":       {0, []uint32{2040, 2040}, []int{2040, 2040}},
		"near_the_last_byte": {1<<64 - 64, []uint32{40, 40}, []int{40, 40}}, // positions wrap
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, end := ringOf(4096, c.at, c.headers, 'x')
			var got []int
			if err := r.walk(c.at, end, func(sample []byte) {
				if !bytes.Equal(sample, bytes.Repeat([]byte{'x'}, len(sample))) {
					t.Errorf("sample is %q", sample)
				}
				got = append(got, len(sample))
			}); err != nil {
				t.Fatal(err)
			}
			if len(got) != len(c.want) {
				t.Fatalf("lengths %v, want %v", got, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("lengths %v, want %v", got, c.want)
				}
			}
		})
	}
}

func TestWalkRefusesWhatTheKernelDoesNotWrite(t *testing.T) {
	t.Parallel()
	long, _ := ringOf(4096, 0, []uint32{4088}, 'x')
	for name, c := range map[string]struct{ at, end uint64 }{
		"longer_than_there_is": {0, 64},
		"read_ahead":           {128, 64},
		"more_than_fits":       {0, 8192},
		"crooked":              {4, 64},
		"half_a_header":        {0, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := long.walk(c.at, c.end, func([]byte) { t.Error("a record was seen") }); !errors.Is(err, errRing) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

// Whatever is in a pinned ring, reading it ends and stays inside.
func FuzzWalk(f *testing.F) {
	whole, end := ringOf(4096, 0, []uint32{5, 9 | ringDiscarded, 100, 24 | ringBusy}, 'x')
	f.Add(whole.twice[:4096], uint64(0), end)
	f.Add(whole.twice[:4096], uint64(8), uint64(4096))
	f.Add([]byte{0xff, 0xff, 0xff, 0x3f}, uint64(0), uint64(64))
	f.Add([]byte{}, uint64(1<<63), uint64(1<<63+8))
	f.Fuzz(func(t *testing.T, content []byte, at, end uint64) {
		once := make([]byte, 4096)
		copy(once, content)
		r := records{twice: append(once, once...)}
		total := 0
		_ = r.walk(at, end, func(sample []byte) { total += len(sample) })
		if total > len(once) {
			t.Errorf("%d bytes of %d", total, len(once))
		}
	})
}
