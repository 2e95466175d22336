package packagedb

import (
	"encoding/binary"
	"fmt"
	"io"
	"iter"
)

// The part of Berkeley DB's hash format that rpm used, from its source (src/dbinc/db_page.h): all pages have one size and
// a 26-byte header; hash pages hold keys and values by turns, large values lie on chains of overflow pages.
const (
	bdbHashMagic  = 0x061561
	bdbPageHeader = 26
	bdbMetaType   = 8
	bdbOverflow   = 7
	bdbHashOld    = 2
	bdbHash       = 13
	bdbKeyData    = 1
	bdbOffPage    = 3
)

type bdbFile struct {
	f     io.ReaderAt
	order binary.ByteOrder
	page  int
	last  uint32
}

// bdbHeaders iterates over the package headers of a Packages file.
func bdbHeaders(f io.ReaderAt, size int64, _ []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		db, err := openBDB(f, size)
		if err != nil {
			yield(nil, err)
			return
		}
		for pgno := uint32(1); pgno <= db.last; pgno++ {
			page, err := db.read(pgno)
			if err != nil {
				yield(nil, err)
				return
			}
			if kind := page[25]; kind != bdbHash && kind != bdbHashOld {
				continue
			}
			if !db.values(page, yield) {
				return
			}
		}
	}
}

func openBDB(f io.ReaderAt, size int64) (*bdbFile, error) {
	meta := make([]byte, 72)
	if _, err := f.ReadAt(meta, 0); err != nil {
		return nil, fmt.Errorf("%w: no Berkeley DB header", errDamaged)
	}
	db := &bdbFile{f: f, order: binary.LittleEndian}
	if db.order.Uint32(meta[12:]) != bdbHashMagic {
		db.order = binary.BigEndian
	}
	page, last := db.order.Uint32(meta[20:]), db.order.Uint32(meta[32:])
	encrypted, flags, kind := meta[24], meta[26], meta[25]
	if db.order.Uint32(meta[12:]) != bdbHashMagic || kind != bdbMetaType || encrypted != 0 || flags != 0 {
		return nil, fmt.Errorf("%w: not a plain Berkeley DB hash", errDamaged)
	}
	if page < 512 || page > 65536 || page&(page-1) != 0 || (int64(last)+1)*int64(page) > size {
		return nil, fmt.Errorf("%w: %d pages of %d bytes in a file of %d", errDamaged, last, page, size)
	}
	db.page, db.last = int(page), last
	return db, nil
}

func (db *bdbFile) read(pgno uint32) ([]byte, error) {
	if pgno > db.last {
		return nil, fmt.Errorf("%w: page %d of %d", errDamaged, pgno, db.last)
	}
	page := make([]byte, db.page)
	if _, err := db.f.ReadAt(page, int64(pgno)*int64(db.page)); err != nil {
		return nil, fmt.Errorf("read page %d: %w", pgno, err)
	}
	return page, nil
}

// values yields the headers of one hash page and reports whether the caller wants more. The record with key 0 is rpm's
// counter, not a package.
func (db *bdbFile) values(page []byte, yield func([]byte, error) bool) bool {
	entries := int(db.order.Uint16(page[20:]))
	if bdbPageHeader+2*entries > len(page) || entries%2 != 0 {
		return yield(nil, fmt.Errorf("%w: %d entries in a page", errDamaged, entries)) && false
	}
	end := len(page)
	for i := 0; i < entries; i += 2 {
		key, value := int(db.order.Uint16(page[bdbPageHeader+2*i:])), int(db.order.Uint16(page[bdbPageHeader+2*i+2:]))
		if key >= end || value >= key {
			return yield(nil, fmt.Errorf("%w: entries of a page overlap", errDamaged)) && false
		}
		number, item := page[key:end], page[value:key]
		end = value
		if len(number) != 5 || number[0] != bdbKeyData || string(number[1:]) == "\x00\x00\x00\x00" {
			continue
		}
		blob, err := db.value(item)
		if !yield(blob, err) || err != nil {
			return false
		}
	}
	return true
}

// value returns an item's content, from its page or from its chain of overflow pages.
func (db *bdbFile) value(item []byte) ([]byte, error) {
	if item[0] == bdbKeyData {
		return item[1:], nil
	}
	if item[0] != bdbOffPage || len(item) < 12 {
		return nil, fmt.Errorf("%w: an entry of type %d", errDamaged, item[0])
	}
	next, size := db.order.Uint32(item[4:]), int64(db.order.Uint32(item[8:]))
	if size > maxHeader || size > int64(db.last+1)*int64(db.page) {
		return nil, fmt.Errorf("%w: an entry of %d bytes", errDamaged, size)
	}
	out := make([]byte, 0, size)
	for int64(len(out)) < size {
		page, err := db.read(next)
		if err != nil {
			return nil, err
		}
		n := int(db.order.Uint16(page[22:]))
		if page[25] != bdbOverflow || n == 0 || bdbPageHeader+n > len(page) || int64(len(out)+n) > size {
			return nil, fmt.Errorf("%w: page %d does not continue an entry", errDamaged, next)
		}
		out = append(out, page[bdbPageHeader:bdbPageHeader+n]...)
		next = db.order.Uint32(page[16:])
	}
	return out, nil
}
