package recorder

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"bailey/agent/event"
)

// The format. Numbers are little-endian.
const (
	segmentMagic = "BAILEYRC"
	formatOne    = 1
	segmentSize  = 64 // of a segment's header

	blockMagic = "BLK\x01"
	blockSize  = 96 // of a block's header

	maxRaw    = 1 << 20           // records of one block; what claims more is damage
	maxPacked = maxRaw + maxRaw/8 // the same compressed: zstd never grows that much
	maxRecord = 256 << 10
)

// marker is what every block of a segment begins with, behind blockMagic.
type marker [8]byte

// bootID names one uptime of the machine.
type bootID [16]byte

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// segmentHeader is the beginning of a segment.
type segmentHeader struct {
	number  uint64
	marker  marker
	boot    bootID
	created int64 // nanoseconds since the epoch
}

func (h *segmentHeader) append(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, segmentMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, formatOne)
	dst = binary.LittleEndian.AppendUint32(dst, segmentSize)
	dst = binary.LittleEndian.AppendUint64(dst, h.number)
	dst = append(dst, h.marker[:]...)
	dst = append(dst, h.boot[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.created))
	dst = append(dst, 0, 0, 0, 0)
	return binary.LittleEndian.AppendUint32(dst, checksum(dst[at:]))
}

// parse reads a header and reports whether it is one.
func (h *segmentHeader) parse(b []byte) bool {
	if len(b) < segmentSize || string(b[:8]) != segmentMagic || binary.LittleEndian.Uint32(b[60:]) != checksum(b[:60]) ||
		binary.LittleEndian.Uint32(b[8:]) != formatOne {
		return false
	}
	h.number = binary.LittleEndian.Uint64(b[16:])
	copy(h.marker[:], b[24:])
	copy(h.boot[:], b[32:])
	h.created = int64(binary.LittleEndian.Uint64(b[48:]))
	return true
}

// blockHeader says what a block holds, so that a reader can pass over it without reading it.
type blockHeader struct {
	packed, raw, records uint32
	marker               marker
	boot                 bootID
	run                  uint64        // when the agent started, nanoseconds since boot
	index                uint64        // of the block in that run, contiguous from 0
	first, last          uint64        // the least and the greatest time in it
	zero                 int64         // the wall clock at that boot's beginning, nanoseconds since the epoch
	kinds                event.KindSet // of its events; kind 0 stands for the recorder's own records
	sum                  uint32        // of the frame
}

func (h *blockHeader) append(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, blockMagic...)
	dst = append(dst, h.marker[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, h.packed)
	dst = binary.LittleEndian.AppendUint32(dst, h.raw)
	dst = binary.LittleEndian.AppendUint32(dst, h.records)
	dst = append(dst, h.boot[:]...)
	for _, v := range [...]uint64{h.run, h.index, h.first, h.last, uint64(h.zero), uint64(h.kinds)} {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	dst = binary.LittleEndian.AppendUint32(dst, h.sum)
	return binary.LittleEndian.AppendUint32(dst, checksum(dst[at:]))
}

// parse reads a header and reports whether it is one.
func (h *blockHeader) parse(b []byte) bool {
	if len(b) < blockSize || string(b[:4]) != blockMagic || binary.LittleEndian.Uint32(b[92:]) != checksum(b[:92]) {
		return false
	}
	copy(h.marker[:], b[4:])
	h.packed, h.raw, h.records = binary.LittleEndian.Uint32(b[12:]), binary.LittleEndian.Uint32(b[16:]), binary.LittleEndian.Uint32(b[20:])
	copy(h.boot[:], b[24:])
	for i, v := range [...]*uint64{&h.run, &h.index, &h.first, &h.last} {
		*v = binary.LittleEndian.Uint64(b[40+8*i:])
	}
	h.zero = int64(binary.LittleEndian.Uint64(b[72:]))
	h.kinds = event.KindSet(binary.LittleEndian.Uint64(b[80:]))
	h.sum = binary.LittleEndian.Uint32(b[88:])
	return h.raw > 0 && h.raw <= maxRaw && h.packed > 0 && h.packed <= maxPacked
}

// size is what the block takes in its segment.
func (h *blockHeader) size() int64 { return blockSize + int64(h.packed) }

// needle is what the blocks of a segment are found by.
func (m marker) needle() []byte { return append([]byte(blockMagic), m[:]...) }

// onlyZeros reports whether b is what a file system leaves where it lost the data of a file that had grown.
func onlyZeros(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
