package packagedb

import (
	"bytes"
	"encoding/binary"
	"io"
	"iter"
	"testing"
)

// headerOf builds the smallest package header: one name, one directory, one file.
func headerOf() []byte {
	type value struct {
		tag, kind, count uint32
		data             []byte
	}
	values := []value{
		{tagName, typeString, 1, []byte("p\x00")},
		{tagBaseNames, typeStringArray, 1, []byte("f\x00")},
		{tagDirNames, typeStringArray, 1, []byte("/d/\x00\x00\x00")},
		{tagDirIndexes, typeInt32, 1, []byte{0, 0, 0, 0}},
	}
	var index, data []byte
	for _, v := range values {
		for len(data)%4 != 0 {
			data = append(data, 0)
		}
		for _, n := range []uint32{v.tag, v.kind, uint32(len(data)), v.count} {
			index = binary.BigEndian.AppendUint32(index, n)
		}
		data = append(data, v.data...)
	}
	out := binary.BigEndian.AppendUint32(nil, uint32(len(values)))
	out = binary.BigEndian.AppendUint32(out, uint32(len(data)))
	return append(append(out, index...), data...)
}

func FuzzHeader(f *testing.F) {
	f.Add(headerOf())
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, blob []byte) {
		b := newBuilder()
		if err := addRPMPackage(b, blob); err != nil {
			return
		}
		s := b.finish()
		for e := range s.Entries() {
			if _, ok := s.Lookup(e.Path); !ok {
				t.Errorf("%q is listed and not found", e.Path)
			}
		}
	})
}

// TestSmallestHeader keeps the fuzz seed a valid one.
func TestSmallestHeader(t *testing.T) {
	t.Parallel()
	b := newBuilder()
	if err := addRPMPackage(b, headerOf()); err != nil {
		t.Fatal(err)
	}
	if e, ok := b.finish().Lookup("/d/f"); !ok || e.Package.Name != "p" {
		t.Fatalf("got %+v, %v", e, ok)
	}
}

// seedSQLite is a database of one page whose schema has the table Packages on page 2, which has one row.
func seedSQLite() []byte {
	db := make([]byte, 1024)
	copy(db, sqliteMagic)
	binary.BigEndian.PutUint16(db[16:], 512)
	leaf := func(page []byte, base int, row []byte) {
		page[base] = pageLeaf
		binary.BigEndian.PutUint16(page[base+3:], 1)
		cell := append([]byte{byte(len(row)), 1}, row...)
		at := 512 - len(cell)
		binary.BigEndian.PutUint16(page[base+8:], uint16(at))
		copy(page[at:], cell)
	}
	leaf(db[:512], 100, []byte("\x06\x17\x1d\x1d\x01\x0dtablePackagesPackages\x02"))
	header := headerOf()
	leaf(db[512:], 0, append([]byte{4, 0, 0x81, byte((2*len(header) + 12) & 0x7f)}, header...))
	return db
}

// seedNDB is a file with one slot and its blob.
func seedNDB() []byte {
	header := headerOf()
	db := make([]byte, ndbPage, ndbPage+64+len(header))
	put := binary.LittleEndian.PutUint32
	put(db, ndbMagic)
	put(db[12:], 1)
	put(db[32:], ndbSlotMagic)
	put(db[36:], 1)
	put(db[40:], ndbPage/ndbBlock)
	put(db[44:], uint32(len(header)/ndbBlock+1))
	for _, n := range []uint32{ndbBlobMagic, 1, 0, uint32(len(header))} {
		db = binary.LittleEndian.AppendUint32(db, n)
	}
	return append(db, header...)
}

// seedBDB is a hash file with one page that holds one small entry.
func seedBDB() []byte {
	db := make([]byte, 1024)
	put := binary.LittleEndian.PutUint32
	put(db[12:], bdbHashMagic)
	put(db[20:], 512)
	db[25] = bdbMetaType
	put(db[32:], 1)
	page, header := db[512:], headerOf()
	page[25] = bdbHash
	key, value := 512-5, 512-5-1-len(header)
	copy(page[key:], []byte{bdbKeyData, 1, 0, 0, 0})
	page[value] = bdbKeyData
	copy(page[value+1:], header)
	binary.LittleEndian.PutUint16(page[20:], 2)
	binary.LittleEndian.PutUint16(page[26:], uint16(key))
	binary.LittleEndian.PutUint16(page[28:], uint16(value))
	return db
}

// TestSeeds keeps the fuzz seeds valid: each is read to its one package.
func TestSeeds(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		file []byte
		read func(io.ReaderAt, int64, []byte) iter.Seq2[[]byte, error]
	}{"sqlite": {seedSQLite(), sqliteHeaders}, "ndb": {seedNDB(), ndbHeaders}, "bdb": {seedBDB(), bdbHeaders}}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := 0
			for blob, err := range test.read(bytes.NewReader(test.file), int64(len(test.file)), nil) {
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(blob, headerOf()) {
					t.Errorf("got %x", blob)
				}
				n++
			}
			if n != 1 {
				t.Errorf("%d headers", n)
			}
		})
	}
}

func FuzzDatabases(f *testing.F) {
	f.Add(seedSQLite(), []byte{})
	f.Add(seedNDB(), []byte{})
	f.Add(seedBDB(), []byte{0x37, 0x7f, 0x06, 0x82})
	f.Fuzz(func(t *testing.T, file, wal []byte) {
		if len(file) > 1<<20 {
			return
		}
		for _, format := range rpmFormats {
			n := 0
			for blob, err := range format.headers(bytes.NewReader(file), int64(len(file)), wal) {
				if err == nil && len(blob) > len(file)+len(wal)+1<<16 {
					t.Errorf("%s: a blob of %d bytes from a file of %d", format.file, len(blob), len(file))
				}
				if n++; n > 1000 {
					break
				}
			}
		}
	})
}
