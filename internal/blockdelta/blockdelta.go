// Package blockdelta describes a text as pieces of another: copies from a base, wherever they are in it, and what the base does not have. It compresses
// nothing and verifies nothing: whoever applies a delta knows the digest of what must come out.
//
// A delta is a sequence of operations, each begun by a number of the kind that encoding/binary calls uvarint:
//
//	0                       the end
//	1, offset, length       copy from the base
//	2, length, bytes        take these bytes
//
// Invariant: Apply reads nothing outside of the base and writes no more than it was told, whatever the delta says.
package blockdelta

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

const (
	opEnd  = 0
	opCopy = 1
	opData = 2
)

// block is the size of the pieces of the base that are looked for. Smaller ones find more and cost more memory.
const block = 512

// ErrDelta says that a delta is not one, or not for this base.
var ErrDelta = errors.New("no delta for this base")

// Make writes the delta that makes text out of base.
func Make(w io.Writer, base, text []byte) error {
	m := maker{w: bufio.NewWriter(w), base: base, text: text, at: index(base)}
	if err := m.run(); err != nil {
		return fmt.Errorf("make a delta: %w", err)
	}
	return nil
}

// index finds the blocks of the base by their hash. Of equal ones the first is kept.
func index(base []byte) map[uint64]int {
	at := make(map[uint64]int, len(base)/block)
	for i := 0; i+block <= len(base); i += block {
		h := hash(base[i : i+block])
		if _, found := at[h]; !found {
			at[h] = i
		}
	}
	return at
}

// mix spreads a byte over 64 bits; the sum of rotated mixes can be moved along by one byte (a cyclic polynomial).
func mix(b byte) uint64 {
	x := (uint64(b) + 1) * 0x9e3779b97f4a7c15
	x ^= x >> 29
	x *= 0xbf58476d1ce4e5b9
	return x ^ x>>32
}

func hash(b []byte) uint64 {
	var h uint64
	for _, c := range b {
		h = bits.RotateLeft64(h, 1) ^ mix(c)
	}
	return h
}

// roll moves a hash by one byte.
func roll(h uint64, out, in byte) uint64 {
	return bits.RotateLeft64(h, 1) ^ bits.RotateLeft64(mix(out), block%64) ^ mix(in)
}

// maker is one delta on its way.
type maker struct {
	w          *bufio.Writer
	base, text []byte
	at         map[uint64]int
	done       int // bytes of text that are written
}

func (m *maker) run() error {
	i, h, known := 0, uint64(0), false
	for i+block <= len(m.text) {
		if !known {
			h, known = hash(m.text[i:i+block]), true
		}
		if from, found := m.at[h]; found && bytes.Equal(m.base[from:from+block], m.text[i:i+block]) {
			from, start, n := m.extend(from, i)
			if err := errors.Join(m.data(m.text[m.done:start]), m.copy(from, n)); err != nil {
				return err
			}
			m.done = start + n
			i, known = m.done, false
			continue
		}
		if i+block < len(m.text) {
			h = roll(h, m.text[i], m.text[i+block])
		}
		i++
	}
	if err := errors.Join(m.data(m.text[m.done:]), m.numbers(opEnd)); err != nil {
		return err
	}
	return m.w.Flush()
}

// extend makes a match as long as it can be, to both sides.
func (m *maker) extend(from, start int) (int, int, int) {
	n := block
	for from+n < len(m.base) && start+n < len(m.text) && m.base[from+n] == m.text[start+n] {
		n++
	}
	for from > 0 && start > m.done && m.base[from-1] == m.text[start-1] {
		from, start, n = from-1, start-1, n+1
	}
	return from, start, n
}

func (m *maker) copy(from, n int) error { return m.numbers(opCopy, uint64(from), uint64(n)) }

func (m *maker) data(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if err := m.numbers(opData, uint64(len(b))); err != nil {
		return err
	}
	_, err := m.w.Write(b)
	return err
}

func (m *maker) numbers(all ...uint64) error {
	var b []byte
	for _, n := range all {
		b = binary.AppendUvarint(b, n)
	}
	_, err := m.w.Write(b)
	return err
}

// Apply writes what a delta makes out of a base, which must be exactly size bytes. What follows the delta in r may have been read.
func Apply(w io.Writer, base io.ReaderAt, baseSize int64, r io.Reader, size int64) error {
	in := bufio.NewReader(r)
	left := uint64(size)
	for {
		op, err := binary.ReadUvarint(in)
		if err != nil {
			return ended(err)
		}
		switch op {
		case opEnd:
			if left != 0 {
				return fmt.Errorf("%w: it ends %d bytes early", ErrDelta, left)
			}
			return nil
		case opCopy, opData:
		default:
			return fmt.Errorf("%w: operation %d", ErrDelta, op)
		}
		var from uint64
		if op == opCopy {
			if from, err = binary.ReadUvarint(in); err != nil {
				return ended(err)
			}
		}
		n, err := binary.ReadUvarint(in)
		if err != nil {
			return ended(err)
		}
		if n == 0 || n > left {
			return fmt.Errorf("%w: a piece of %d bytes, where %d are left", ErrDelta, n, left)
		}
		left -= n
		piece := io.Reader(in)
		if op == opCopy {
			if from > uint64(baseSize) || n > uint64(baseSize)-from {
				return fmt.Errorf("%w: it copies from outside of the base", ErrDelta)
			}
			piece = io.NewSectionReader(base, int64(from), int64(n))
		}
		if _, err := io.CopyN(w, piece, int64(n)); err != nil {
			return ended(err)
		}
	}
}

func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is cut", ErrDelta)
	}
	return err
}
