package packagedb

import (
	"encoding/binary"
	"fmt"
	"io"
	"iter"
)

// The format of rpm's own "ndb" backend, from its source (lib/backend/ndb/rpmpkg.c): 16-byte slots in the first pages say
// where each package's blob lies; the first two slots are the file's header.
const (
	ndbMagic     = 'R' | 'p'<<8 | 'm'<<16 | 'P'<<24
	ndbSlotMagic = 'S' | 'l'<<8 | 'o'<<16 | 't'<<24
	ndbBlobMagic = 'B' | 'l'<<8 | 'b'<<16 | 'S'<<24
	ndbPage      = 4096
	ndbBlock     = 16
)

// ndbHeaders iterates over the package headers of a Packages.db file.
func ndbHeaders(f io.ReaderAt, size int64, _ []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		head := make([]byte, 32)
		if _, err := f.ReadAt(head, 0); err != nil || binary.LittleEndian.Uint32(head) != ndbMagic || binary.LittleEndian.Uint32(head[4:]) != 0 {
			yield(nil, fmt.Errorf("%w: no ndb header of version 0", errDamaged))
			return
		}
		slotBytes := int64(binary.LittleEndian.Uint32(head[12:])) * ndbPage
		if slotBytes == 0 || slotBytes > size {
			yield(nil, fmt.Errorf("%w: %d bytes of slots in a file of %d", errDamaged, slotBytes, size))
			return
		}
		slots := make([]byte, slotBytes)
		if _, err := f.ReadAt(slots, 0); err != nil {
			yield(nil, fmt.Errorf("read slots: %w", err))
			return
		}
		for slot := slots[2*ndbBlock:]; len(slot) >= ndbBlock; slot = slot[ndbBlock:] {
			if binary.LittleEndian.Uint32(slot[4:]) == 0 { // free
				continue
			}
			blob, err := ndbBlob(f, size, slot)
			if !yield(blob, err) || err != nil {
				return
			}
		}
	}
}

func ndbBlob(f io.ReaderAt, size int64, slot []byte) ([]byte, error) {
	if binary.LittleEndian.Uint32(slot) != ndbSlotMagic {
		return nil, fmt.Errorf("%w: a slot without its magic number", errDamaged)
	}
	at := int64(binary.LittleEndian.Uint32(slot[8:])) * ndbBlock
	head := make([]byte, ndbBlock)
	if _, err := f.ReadAt(head, at); err != nil {
		return nil, fmt.Errorf("read blob at %d: %w", at, err)
	}
	length := int64(binary.LittleEndian.Uint32(head[12:]))
	if binary.LittleEndian.Uint32(head) != ndbBlobMagic || string(head[4:8]) != string(slot[4:8]) || length > maxHeader || at+ndbBlock+length > size {
		return nil, fmt.Errorf("%w: blob at %d is not the slot's package", errDamaged, at)
	}
	blob := make([]byte, length)
	if _, err := f.ReadAt(blob, at+ndbBlock); err != nil {
		return nil, fmt.Errorf("read blob at %d: %w", at, err)
	}
	return blob, nil
}
