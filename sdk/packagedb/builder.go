package packagedb

import (
	"encoding/hex"
	"hash/maphash"
	"math"
)

// builder collects a snapshot. It bounds what it takes: offsets are 32 bits, and a database beyond that is damaged.
type builder struct {
	s Snapshot
}

func newBuilder() *builder {
	b := &builder{}
	b.s.seed = maphash.MakeSeed()
	return b
}

// addPackage adds p and returns its index.
func (b *builder) addPackage(p Package) uint32 {
	b.s.packages = append(b.s.packages, p)
	return uint32(len(b.s.packages) - 1)
}

// addFile adds one path of a package and returns its record. It refuses what cannot be a path.
func (b *builder) addFile(pkg uint32, path string) *record {
	if len(path) < 2 || path[0] != '/' || len(path) > math.MaxUint16 || len(b.s.paths)+len(path) > math.MaxUint32 {
		return nil
	}
	b.s.records = append(b.s.records, record{path: uint32(len(b.s.paths)), length: uint16(len(path)), pkg: pkg})
	b.s.paths = append(b.s.paths, path...)
	return &b.s.records[len(b.s.records)-1]
}

// setDigest records a hexadecimal digest; one that is not of the algorithm's length is left out.
func (b *builder) setDigest(r *record, a Algorithm, digits []byte) bool {
	if a.Size() == 0 || len(digits) != 2*a.Size() {
		return false
	}
	at := len(b.s.digests)
	if at > math.MaxUint32-a.Size() {
		return false
	}
	sums, err := hex.AppendDecode(b.s.digests, digits)
	if err != nil {
		b.s.digests = b.s.digests[:at]
		return false
	}
	b.s.digests, r.digest, r.algorithm = sums, uint32(at), a
	return true
}

// finish indexes the records. Where two packages list one path, the entry with a digest wins, then the later one: a
// directory that was taken for a file never hides a file.
func (b *builder) finish() *Snapshot {
	s := &b.s
	size := 16
	for size < 2*len(s.records) {
		size *= 2
	}
	s.table = make([]uint32, size)
	mask := uint64(size - 1)
	for i := range s.records {
		r := &s.records[i]
		path := s.path(r)
		for at := maphash.Bytes(s.seed, path) & mask; ; at = (at + 1) & mask {
			j := s.table[at]
			if j == 0 {
				s.table[at] = uint32(i + 1)
				break
			}
			if old := &s.records[j-1]; string(s.path(old)) == string(path) {
				if r.algorithm != NoDigest || old.algorithm == NoDigest {
					s.table[at] = uint32(i + 1)
				}
				break
			}
		}
	}
	return s
}
