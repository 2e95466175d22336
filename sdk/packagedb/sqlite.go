package packagedb

import (
	"encoding/binary"
	"fmt"
	"io"
	"iter"
)

// A reader for the one table of an SQLite file that rpm keeps its headers in, from SQLite's description of its file
// format (sqlite.org/fileformat2.html). The real library weighs 8 MB in a static binary without cgo, and opened for
// reading only it either ignores the write-ahead log or wants to create a file beside the database.

const (
	sqliteMagic   = "SQLite format 3\x00"
	pageInterior  = 0x05
	pageLeaf      = 0x0d
	maxTreeDepth  = 20
	walMagic      = 0x377f0682 // the lowest bit says that checksums are big-endian
	walHeaderSize = 32
	walFrameSize  = 24
)

// sqliteFile is a database file and the pages that its write-ahead log replaces.
type sqliteFile struct {
	f      io.ReaderAt
	wal    []byte
	logged map[uint32]int // page → offset of its newest committed content in wal
	page   int
	usable int
	pages  uint32
}

// sqliteHeaders iterates over the column blob of the table Packages.
func sqliteHeaders(f io.ReaderAt, size int64, wal []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		if err := sqliteRows(f, size, wal, func(blob []byte) bool { return yield(blob, nil) }); err != nil {
			yield(nil, err)
		}
	}
}

func sqliteRows(f io.ReaderAt, size int64, wal []byte, yield func([]byte) bool) error {
	db, err := openSQLite(f, size, wal)
	if err != nil {
		return err
	}
	root := uint32(0)
	_, err = db.walk(1, 0, new(uint32), func(row []byte) (bool, error) {
		columns, err := sqliteColumns(row, 4)
		if err != nil {
			return false, err
		}
		if string(columns[0].data) == "table" && string(columns[1].data) == "Packages" {
			root = uint32(columns[3].int())
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	if root == 0 {
		return fmt.Errorf("%w: no table Packages", errDamaged)
	}
	_, err = db.walk(root, 0, new(uint32), func(row []byte) (bool, error) {
		columns, err := sqliteColumns(row, 2)
		if err != nil {
			return false, err
		}
		return yield(columns[1].data), nil
	})
	return err
}

func openSQLite(f io.ReaderAt, size int64, wal []byte) (*sqliteFile, error) {
	header := make([]byte, 100)
	if _, err := f.ReadAt(header, 0); err != nil || string(header[:16]) != sqliteMagic {
		return nil, fmt.Errorf("%w: no SQLite header", errDamaged)
	}
	db := &sqliteFile{f: f, page: int(binary.BigEndian.Uint16(header[16:]))}
	if db.page == 1 {
		db.page = 65536
	}
	if db.page < 512 || db.page&(db.page-1) != 0 {
		return nil, fmt.Errorf("%w: page size %d", errDamaged, db.page)
	}
	db.usable = db.page - int(header[20])
	if db.usable < 480 {
		return nil, fmt.Errorf("%w: %d usable bytes in a page", errDamaged, db.usable)
	}
	db.pages = uint32(min(size/int64(db.page), 1<<31))
	db.readLog(wal)
	return db, nil
}

// readLog indexes the pages of all committed transactions in the write-ahead log. The log ends at the first frame that
// does not belong to it; that is normal.
func (db *sqliteFile) readLog(wal []byte) {
	if len(wal) < walHeaderSize || binary.BigEndian.Uint32(wal)&^1 != walMagic || int(binary.BigEndian.Uint32(wal[8:])) != db.page {
		return
	}
	var order binary.ByteOrder = binary.LittleEndian
	if wal[3]&1 != 0 {
		order = binary.BigEndian
	}
	s0, s1 := walChecksum(order, wal[:24], 0, 0)
	if s0 != binary.BigEndian.Uint32(wal[24:]) || s1 != binary.BigEndian.Uint32(wal[28:]) {
		return
	}
	db.wal, db.logged = wal, make(map[uint32]int)
	open := make(map[uint32]int) // of the transaction that is not committed yet
	for at := walHeaderSize; at+walFrameSize+db.page <= len(wal); at += walFrameSize + db.page {
		frame := wal[at : at+walFrameSize]
		if string(frame[8:16]) != string(wal[16:24]) {
			return
		}
		s0, s1 = walChecksum(order, frame[:8], s0, s1)
		s0, s1 = walChecksum(order, wal[at+walFrameSize:at+walFrameSize+db.page], s0, s1)
		if s0 != binary.BigEndian.Uint32(frame[16:]) || s1 != binary.BigEndian.Uint32(frame[20:]) {
			return
		}
		open[binary.BigEndian.Uint32(frame)] = at + walFrameSize
		if pages := binary.BigEndian.Uint32(frame[4:]); pages != 0 {
			db.pages = pages
			for page, offset := range open {
				db.logged[page] = offset
			}
			clear(open)
		}
	}
}

func walChecksum(order binary.ByteOrder, b []byte, s0, s1 uint32) (uint32, uint32) {
	for ; len(b) >= 8; b = b[8:] {
		s0 += order.Uint32(b) + s1
		s1 += order.Uint32(b[4:]) + s0
	}
	return s0, s1
}

func (db *sqliteFile) read(page uint32) ([]byte, error) {
	if page == 0 || page > db.pages {
		return nil, fmt.Errorf("%w: page %d of %d", errDamaged, page, db.pages)
	}
	if at, ok := db.logged[page]; ok {
		return db.wal[at : at+db.page], nil
	}
	buf := make([]byte, db.page)
	if _, err := db.f.ReadAt(buf, int64(page-1)*int64(db.page)); err != nil {
		return nil, fmt.Errorf("read page %d: %w", page, err)
	}
	return buf, nil
}

// walk calls row with every row of the table b-tree at page, in order, until it returns false. visited bounds the walk: a
// sound tree has no page twice.
func (db *sqliteFile) walk(page uint32, depth int, visited *uint32, row func([]byte) (bool, error)) (bool, error) {
	if *visited++; depth > maxTreeDepth || *visited > db.pages {
		return false, fmt.Errorf("%w: the tree has a loop", errDamaged)
	}
	buf, err := db.read(page)
	if err != nil {
		return false, err
	}
	head := buf[:db.usable]
	base := 0
	if page == 1 {
		base = 100
	}
	kind, cells := head[base], int(binary.BigEndian.Uint16(head[base+3:]))
	pointers := base + 8
	if kind == pageInterior {
		pointers += 4
	}
	if (kind != pageInterior && kind != pageLeaf) || pointers+2*cells > len(head) {
		return false, fmt.Errorf("%w: page %d has type %d and %d cells", errDamaged, page, kind, cells)
	}
	for i := range cells {
		at := int(binary.BigEndian.Uint16(head[pointers+2*i:]))
		if at+4 > len(head) {
			return false, fmt.Errorf("%w: a cell of page %d lies at %d", errDamaged, page, at)
		}
		var more bool
		if kind == pageInterior {
			more, err = db.walk(binary.BigEndian.Uint32(head[at:]), depth+1, visited, row)
		} else if payload, perr := db.payload(head[at:]); perr != nil {
			return false, perr
		} else {
			more, err = row(payload)
		}
		if err != nil || !more {
			return false, err
		}
	}
	if kind == pageInterior {
		return db.walk(binary.BigEndian.Uint32(head[base+8:]), depth+1, visited, row)
	}
	return true, nil
}

// payload returns the record of a leaf cell: size, row id, content, and the page that the content goes on at.
func (db *sqliteFile) payload(cell []byte) ([]byte, error) {
	size, n := sqliteVarint(cell)
	_, m := sqliteVarint(cell[n:])
	cell = cell[n+m:]
	if n == 0 || m == 0 || size > maxHeader || size > uint64(db.pages)*uint64(db.page) {
		return nil, fmt.Errorf("%w: a row of %d bytes", errDamaged, size)
	}
	local := int(size)
	if local > db.usable-35 {
		least := (db.usable-12)*32/255 - 23
		if local = least + (int(size)-least)%(db.usable-4); local > db.usable-35 {
			local = least
		}
	}
	if local > len(cell) || (local < int(size) && local+4 > len(cell)) {
		return nil, fmt.Errorf("%w: a row ends beyond its page", errDamaged)
	}
	if local == int(size) {
		return cell[:local], nil
	}
	out := append(make([]byte, 0, size), cell[:local]...)
	next := binary.BigEndian.Uint32(cell[local:])
	for len(out) < int(size) {
		page, err := db.read(next)
		if err != nil {
			return nil, err
		}
		out = append(out, page[4:min(db.usable, 4+int(size)-len(out))]...)
		next = binary.BigEndian.Uint32(page)
	}
	return out, nil
}

// sqliteValue is one column: its serial type and its bytes.
type sqliteValue struct {
	serial uint64
	data   []byte
}

func (v sqliteValue) int() (n uint64) {
	if v.serial == 9 {
		return 1
	}
	for _, b := range v.data {
		n = n<<8 | uint64(b)
	}
	return n
}

// sqliteColumns cuts the first want columns of a record.
func sqliteColumns(row []byte, want int) ([]sqliteValue, error) {
	size, n := sqliteVarint(row)
	if n == 0 || size < uint64(n) || size > uint64(len(row)) {
		return nil, fmt.Errorf("%w: a record's header has %d bytes", errDamaged, size)
	}
	head, body := row[n:size], row[size:]
	var out []sqliteValue
	for len(head) > 0 && len(out) < want {
		serial, n := sqliteVarint(head)
		if n == 0 {
			break
		}
		head = head[n:]
		length := uint64(0)
		switch {
		case serial >= 12:
			length = (serial - 12) / 2
		case serial <= 7:
			length = [...]uint64{0, 1, 2, 3, 4, 6, 8, 8}[serial]
		}
		if length > uint64(len(body)) {
			return nil, fmt.Errorf("%w: a column of %d bytes", errDamaged, length)
		}
		out = append(out, sqliteValue{serial: serial, data: body[:length]})
		body = body[length:]
	}
	if len(out) < want {
		return nil, fmt.Errorf("%w: a row of %d columns", errDamaged, len(out))
	}
	return out, nil
}

// sqliteVarint reads a big-endian variable-length number; the length is 0 where b ends too early.
func sqliteVarint(b []byte) (v uint64, n int) {
	for i := range min(9, len(b)) {
		if i == 8 {
			return v<<8 | uint64(b[8]), 9
		}
		v = v<<7 | uint64(b[i]&0x7f)
		if b[i] < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}
