package recorder

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// unpacker reads blocks. Not safe for concurrent use; close it.
type unpacker struct {
	zip    *zstd.Decoder
	packed []byte
	raw    []byte
}

func newUnpacker() (*unpacker, error) {
	// The frame's own word on its size is not believed: the result has to fit into what the block's header said.
	zip, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxRaw), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("make a decompressor: %w", err)
	}
	return &unpacker{zip: zip}, nil
}

func (u *unpacker) close() { u.zip.Close() }

var (
	errSum   = errors.New("its checksum does not fit")
	errShort = errors.New("it is not whole")
)

// frame reads a block's frame and checks it. The result is valid until the next call.
func (u *unpacker) frame(r io.ReaderAt, s *span) ([]byte, error) {
	if cap(u.packed) < int(s.packed) {
		u.packed = make([]byte, s.packed)
	}
	b := u.packed[:s.packed]
	if n, err := r.ReadAt(b, s.at+blockSize); n < len(b) {
		if errors.Is(err, io.EOF) {
			return nil, errShort
		}
		return nil, err
	}
	if checksum(b) != s.sum {
		return nil, errSum
	}
	return b, nil
}

// records reads a block's records, not yet taken apart. The result is valid until the next call.
func (u *unpacker) records(r io.ReaderAt, s *span) ([]byte, error) {
	b, err := u.frame(r, s)
	if err != nil {
		return nil, err
	}
	if cap(u.raw) < int(s.raw) {
		u.raw = make([]byte, 0, s.raw)
	}
	raw, err := u.zip.DecodeAll(b, u.raw[:0:s.raw])
	if err != nil {
		return nil, fmt.Errorf("it cannot be decompressed: %w", err)
	}
	if len(raw) != int(s.raw) {
		return nil, fmt.Errorf("it holds %d bytes of records and should hold %d", len(raw), s.raw)
	}
	return raw, nil
}
