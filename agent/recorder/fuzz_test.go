package recorder

import (
	"bytes"
	"testing"

	"bailey/agent/event"
	"bailey/agent/product/link"
)

// FuzzSegment: whatever a segment's file holds, the reader ends, believes nothing beyond the file, and accounts for every byte.
func FuzzSegment(f *testing.F) {
	whole, spans := blocksOf(f, 3)
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add(whole[:segmentSize])
	f.Add(whole[segmentSize:])
	f.Add(append(bytes.Clone(whole[:spans[1].at]), whole[spans[1].at+5:]...))
	f.Add(append(bytes.Clone(whole), make([]byte, 500)...))
	f.Add(bytes.Repeat([]byte(blockMagic), 100))
	f.Add([]byte("#!/bin/sh\n"))
	u, err := newUnpacker()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(u.close)
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		spans, skips, err := scanSegment(r, int64(len(b)), "x")
		if err != nil {
			t.Fatal(err)
		}
		covered := int64(0)
		for _, s := range skips {
			if s.Offset < 0 || s.Bytes < 0 || s.Offset+s.Bytes > int64(len(b)) {
				t.Fatalf("skipped %+v of %d bytes", s, len(b))
			}
			covered += s.Bytes
		}
		for i := range spans {
			if spans[i].at < 0 || spans[i].at+spans[i].size() > int64(len(b)) {
				t.Fatalf("block at %d of %d bytes", spans[i].at, len(b))
			}
			covered += spans[i].size()
			raw, err := u.records(r, &spans[i])
			if err == nil {
				takeApart(t, raw)
			}
		}
		var h segmentHeader
		if h.parse(b) {
			covered += segmentSize
		}
		if covered != int64(len(b)) {
			t.Fatalf("%d of %d bytes are accounted for", covered, len(b))
		}
	})
}

// FuzzFrame: a block whose checksums are right and whose content is anything.
func FuzzFrame(f *testing.F) {
	whole, spans := blocksOf(f, 1)
	f.Add(whole[spans[0].at+blockSize:], spans[0].raw)
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, 0x00}, uint32(maxRaw))
	f.Add([]byte{}, uint32(1))
	u, err := newUnpacker()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(u.close)
	f.Fuzz(func(t *testing.T, frame []byte, size uint32) {
		h := segmentHeader{marker: marker{1}}
		b := h.append(nil)
		bh := blockHeader{marker: h.marker, packed: uint32(len(frame)), raw: size, sum: checksum(frame)}
		b = append(bh.append(b), frame...)
		spans, _, err := scanSegment(bytes.NewReader(b), int64(len(b)), "x")
		if err != nil {
			t.Fatal(err)
		}
		for i := range spans {
			if raw, err := u.records(bytes.NewReader(b), &spans[i]); err == nil {
				if len(raw) > maxRaw {
					t.Fatalf("%d bytes of records", len(raw))
				}
				takeApart(t, raw)
			}
		}
	})
}

// FuzzRecords: the content of a block, anything.
func FuzzRecords(f *testing.F) {
	b, err := newBlock()
	if err != nil {
		f.Fatal(err)
	}
	b.event(new(link.Codec), newExec(1))
	b.loss(1, 2, CauseSlow)
	b.note(Start, 3, "1.0")
	b.note(End, 4, "")
	f.Add(bytes.Clone(b.raw))
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{2, 1, 0x80})
	f.Fuzz(func(t *testing.T, raw []byte) { takeApart(t, raw) })
}

// takeApart reads the records of a block as the Reader does, and asks the filter about each.
func takeApart(t *testing.T, raw []byte) {
	t.Helper()
	r := Reader{
		cfg: ReaderConfig{Decoder: new(link.Codec)}, raw: raw, in: new(span), zeros: map[bootID]int64{},
		filter: newFilter(Query{Process: event.ProcessKey{PID: 1}, Tree: true}),
	}
	for n := len(raw); len(r.raw) > 0; {
		rec, err := r.cut()
		if err == nil {
			r.filter.wants(rec)
		}
		if len(r.raw) >= n {
			t.Fatal("nothing was taken off")
		}
		n = len(r.raw)
	}
}
