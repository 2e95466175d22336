package recorder

import (
	"fmt"

	"bailey/agent/event"

	"github.com/klauspost/compress/zstd"
)

// fullBlock is how many bytes of records make a block that is written at once.
const fullBlock = 128 << 10

// block collects records until they are written. Not safe for concurrent use.
type block struct {
	raw     []byte
	body    []byte // the record being made
	records uint32
	events  uint64 // of the records
	first   uint64
	last    uint64
	kinds   event.KindSet
	zip     *zstd.Encoder
	out     []byte
}

func newBlock() (*block, error) {
	zip, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("make the recorder's compressor: %w", err)
	}
	return &block{zip: zip}, nil
}

// event adds e and reports whether it could.
func (b *block) event(enc Encoder, e *event.Event) bool {
	b.body = enc.AppendEvent(b.body[:0], e)
	if len(b.body) > maxRecord {
		b.body = nil // one giant is not kept in memory for ever
		return false
	}
	b.add(Event, e.Kind, e.Time)
	return true
}

func (b *block) loss(at, n uint64, cause string) {
	b.body = appendLoss(b.body[:0], at, n, cause)
	b.add(Loss, 0, at)
}

func (b *block) note(t Type, at uint64, text string) {
	b.body = appendNote(b.body[:0], at, text)
	b.add(t, 0, at)
}

// add adds the record in body.
func (b *block) add(t Type, k event.Kind, at uint64) {
	b.raw = appendRecord(b.raw, t, b.body)
	b.records++
	if t == Event {
		b.events++
	}
	b.kinds |= event.KindsOf(k)
	if b.records == 1 {
		b.first, b.last = at, at
	}
	b.first, b.last = min(b.first, at), max(b.last, at)
}

func (b *block) empty() bool { return b.records == 0 }

func (b *block) full() bool { return len(b.raw) >= fullBlock }

// seal returns the block as it is written. h says where and when; the rest is filled in. The result is valid until the next
// call.
func (b *block) seal(h blockHeader) []byte {
	b.out = append(b.out[:0], make([]byte, blockSize)...)
	b.out = b.zip.EncodeAll(b.raw, b.out)
	frame := b.out[blockSize:]
	h.packed, h.raw, h.records = uint32(len(frame)), uint32(len(b.raw)), b.records
	h.first, h.last, h.kinds, h.sum = b.first, b.last, b.kinds, checksum(frame)
	h.append(b.out[:0])
	return b.out
}

// reset makes the block empty.
func (b *block) reset() {
	b.raw, b.records, b.events, b.kinds = b.raw[:0], 0, 0, 0
}
