package recorder

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/product/link"
	"bailey/internal/boottime"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// blocksOf writes a segment of n blocks with three events each and returns its bytes and the blocks' places.
func blocksOf(t testing.TB, n int) ([]byte, []span) {
	t.Helper()
	b, err := newBlock()
	if err != nil {
		t.Fatal(err)
	}
	h := segmentHeader{number: 1, marker: marker{1, 2, 3, 4, 5, 6, 7, 8}, boot: parseBoot(testBoot)}
	out := h.append(nil)
	for i := range n {
		for j := range 3 {
			if !b.event(new(link.Codec), newExec(uint64(3*i+j+1))) {
				t.Fatal("an event does not fit")
			}
		}
		out = append(out, b.seal(blockHeader{marker: h.marker, boot: h.boot, run: 5, index: uint64(i), zero: 1e18})...)
		b.reset()
	}
	spans, skips, err := scanSegment(bytes.NewReader(out), int64(len(out)), "x")
	if err != nil || len(spans) != n || len(skips) != 0 {
		t.Fatalf("%d blocks, skipped %v, %v", len(spans), skips, err)
	}
	return out, spans
}

// put writes segments with these contents, numbered from 1.
func put(t testing.TB, contents ...[]byte) string {
	t.Helper()
	dir := t.TempDir()
	for i, c := range contents {
		if err := os.WriteFile(filepath.Join(dir, segmentName(uint64(i+1))), c, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// eventsOf are the numbers of the events in the given blocks.
func eventsOf(blocks ...int) []uint64 {
	var out []uint64
	for _, b := range blocks {
		out = append(out, uint64(3*b+1), uint64(3*b+2), uint64(3*b+3))
	}
	return out
}

func TestTornTailAtEveryByte(t *testing.T) {
	t.Parallel()
	whole, spans := blocksOf(t, 3)
	last := spans[2].at
	dir := put(t, whole)
	path := filepath.Join(dir, segmentName(1))
	for cut := last; cut <= int64(len(whole)); cut++ {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		want := eventsOf(0, 1)
		torn := cut > last && cut < int64(len(whole))
		if cut == int64(len(whole)) {
			want = eventsOf(0, 1, 2)
		}
		records, skips := history(t, dir, Query{})
		if d := cmp.Diff(want, seqs(records)); d != "" {
			t.Fatalf("cut at %d of %d: %s", cut-last, int64(len(whole))-last, d)
		}
		if torn != (len(skips) == 1) || torn && (!skips[0].Torn || skips[0].Bytes != cut-last || skips[0].Offset != last) {
			t.Fatalf("cut at %d: skipped %+v", cut-last, skips)
		}
	}
}

func TestFlippedBitCostsItsBlock(t *testing.T) {
	t.Parallel()
	whole, spans := blocksOf(t, 3)
	dir := put(t, whole)
	path := filepath.Join(dir, segmentName(1))
	for at := range whole {
		broken := slices.Clone(whole)
		broken[at] ^= 1 << (at % 8)
		if err := os.WriteFile(path, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		hit := -1 // the segment's header
		for i := range spans {
			if int64(at) >= spans[i].at {
				hit = i
			}
		}
		want := eventsOf(slices.DeleteFunc([]int{0, 1, 2}, func(b int) bool { return b == hit })...)
		records, skips := history(t, dir, Query{})
		if d := cmp.Diff(want, seqs(records)); d != "" {
			t.Fatalf("byte %d in block %d: %s", at, hit, d)
		}
		if len(skips) != 1 || skips[0].Torn {
			t.Fatalf("byte %d in block %d: skipped %+v", at, hit, skips)
		}
	}
}

func TestDamagedSegments(t *testing.T) {
	t.Parallel()
	whole, spans := blocksOf(t, 3)
	other := slices.Clone(whole)
	second := func(from []byte) []byte { return from[spans[1].at : spans[1].at+spans[1].size()] }
	for _, tc := range []struct {
		name    string
		content []byte
		want    []uint64
		skips   int
		torn    bool
		reason  string
	}{
		{"empty", nil, nil, 1, true, "no beginning yet"},
		{"header_alone", whole[:segmentSize], nil, 0, false, ""},
		{"header_cut", whole[:20], nil, 1, true, "no beginning yet"},
		{"only_zeros", make([]byte, 8192), nil, 1, true, "no beginning yet"},
		{"foreign", bytes.Repeat([]byte("#!/bin/sh\n"), 900), nil, 1, false, "no segment of a recorder"},
		{"text_shorter_than_a_header", []byte("hello"), nil, 1, true, "no beginning yet"},
		{"wrong_magic", append([]byte("BAILEYXX"), whole[8:]...), eventsOf(0, 1, 2), 1, false, "damaged"},
		{"later_version", func() []byte {
			b := slices.Clone(whole)
			b[8] = 2
			return b
		}(), eventsOf(0, 1, 2), 1, false, "damaged"},
		{"first_sector_lost", append(make([]byte, spans[1].at+8), whole[spans[1].at+8:]...), eventsOf(2), 1, false, "damaged"},
		{"zeros_at_the_end", append(slices.Clone(whole), make([]byte, 5000)...), eventsOf(0, 1, 2), 1, true, "never written"},
		{"rubbish_at_the_end", append(slices.Clone(whole), bytes.Repeat([]byte("x"), 5000)...), eventsOf(0, 1, 2), 1, false, "damaged"},
		{"rubbish_between", slices.Concat(whole[:spans[1].at], bytes.Repeat([]byte("BLK\x01"), 99), whole[spans[1].at:]), eventsOf(0, 1, 2), 1, false, "damaged"},
		{"hole_in_the_middle", slices.Concat(whole[:spans[1].at], make([]byte, spans[1].size()), whole[spans[2].at:]), eventsOf(0, 2), 1, false, "damaged"},
		{"block_cut_out", slices.Concat(whole[:spans[1].at], whole[spans[2].at:]), eventsOf(0, 2), 1, false, "1 blocks before this one are missing"},
		// A block of another segment has another marker.
		{"block_of_another_segment", func() []byte {
			h := spans[1].blockHeader
			h.marker = marker{9}
			foreign := append(h.append(nil), other[spans[1].at+blockSize:spans[2].at]...)
			return slices.Concat(whole[:spans[1].at], foreign, whole[spans[2].at:])
		}(), eventsOf(0, 2), 1, false, "damaged"},
		{"block_twice", slices.Concat(whole[:spans[2].at], second(whole), whole[spans[2].at:]), eventsOf(0, 1, 1, 2), 0, false, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			records, skips := history(t, put(t, tc.content), Query{})
			if d := cmp.Diff(tc.want, seqs(records)); d != "" {
				t.Error(d)
			}
			if len(skips) != tc.skips {
				t.Fatalf("skipped %v", skips)
			}
			if tc.skips > 0 && (skips[0].Torn != tc.torn || !strings.Contains(skips[0].String(), tc.reason)) {
				t.Errorf("skipped %+v", skips)
			}
		})
	}
}

// TestRecordedTextIsNoBlock: whoever can choose a path writes a whole block into it, and damages nothing. Then the disk loses
// the block around it.
func TestRecordedTextIsNoBlock(t *testing.T) {
	t.Parallel()
	inner, spans := blocksOf(t, 1)
	smuggled := string(inner[spans[0].at:])
	b, err := newBlock()
	if err != nil {
		t.Fatal(err)
	}
	h := segmentHeader{number: 1, marker: marker{0xfe, 0xed}, boot: parseBoot(testBoot)}
	whole := h.append(nil)
	// A record that is the block and nothing else: the compressor leaves bytes that do not compress as they are.
	b.note(Start, 1, smuggled)
	sealed := slices.Clone(b.seal(blockHeader{marker: h.marker, boot: h.boot}))
	if !bytes.Contains(sealed, []byte(smuggled[:blockSize/2])) {
		t.Skip("the compressor took the block apart: nothing to be confused by")
	}
	sealed[2] ^= 0xff // its header
	whole = append(whole, sealed...)
	b.reset()
	b.event(new(link.Codec), newExec(99))
	whole = append(whole, b.seal(blockHeader{marker: h.marker, boot: h.boot, index: 1})...)
	records, skips := history(t, put(t, whole), Query{})
	if d := cmp.Diff([]uint64{99}, seqs(records)); d != "" || len(skips) != 1 {
		t.Errorf("%s, skipped %v", d, skips)
	}
}

func TestWhatIsNoRegularFileIsPassedOver(t *testing.T) {
	t.Parallel()
	whole, _ := blocksOf(t, 1)
	dir := put(t, whole)
	if err := unix.Mkfifo(filepath.Join(dir, segmentName(2)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", filepath.Join(dir, segmentName(3))); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, segmentName(4)), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"note.txt", "1.segment", "99999999999999999999.segment"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	records, skips := history(t, dir, Query{})
	if d := cmp.Diff(eventsOf(0), seqs(records)); d != "" || len(skips) != 3 {
		t.Errorf("%s, skipped %v", d, skips)
	}
	// And the recorder works beside them.
	record(t, dir, asIs, newExec(50))
	records, _ = history(t, dir, Query{})
	if d := cmp.Diff(append(eventsOf(0), 50), seqs(records)); d != "" {
		t.Error(d)
	}
}

func TestDamageIsNamedUntilItIsGone(t *testing.T) {
	t.Parallel()
	whole, spans := blocksOf(t, 3)
	broken := slices.Clone(whole)
	broken[spans[1].at+blockSize+3] ^= 1
	dir := put(t, whole, broken, whole[:len(whole)-5])
	g := start(t, dir)
	g.eventually("the damage is in the health list", func() bool { return g.entry().Status == health.Degraded })
	e := g.entry()
	if want := "1 damaged pieces in 1 segments, the first in " + segmentName(2); !strings.Contains(e.Summary, want) || e.Remedy == "" {
		t.Errorf("%+v", e)
	}
	if s := g.Stats(); s.Damaged != 1 || s.Torn != 1 {
		t.Errorf("%+v", s)
	}
	g.stop()
	damaged := map[uint64]uint64{2: 1}
	if err := os.Remove(filepath.Join(dir, segmentName(2))); err != nil {
		t.Fatal(err)
	}
	g.forgetRemoved(damaged)
	g.reportDamage(damaged, 1)
	if e := g.entry(); e.Status != health.OK || !strings.Contains(e.Summary, "the end of 1 earlier segments") {
		t.Errorf("%+v", e)
	}
}

func TestRecordThatCannotBeReadCostsItself(t *testing.T) {
	t.Parallel()
	b, err := newBlock()
	if err != nil {
		t.Fatal(err)
	}
	h := segmentHeader{number: 1, marker: marker{1}}
	b.event(new(link.Codec), newExec(1))
	b.body = []byte("\xff\xff\xff no event")
	b.add(Event, event.Exec, boottime.Now())
	b.body = []byte{1}
	b.add(Type(77), 0, 1)
	b.event(new(link.Codec), newExec(2))
	records, skips := history(t, put(t, append(h.append(nil), b.seal(blockHeader{marker: h.marker})...)), Query{})
	if d := cmp.Diff([]uint64{1, 2}, seqs(records)); d != "" || len(skips) != 2 {
		t.Errorf("%s, skipped %v", d, fmt.Sprint(skips))
	}
}
