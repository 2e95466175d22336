package packagedb

import (
	"bytes"
	"encoding/hex"
	"hash/maphash"
	"iter"
	"slices"
	"strings"
	"time"
)

// Algorithm names a digest's algorithm.
type Algorithm uint8

// The algorithms that package managers record. The numbers are rpm's (OpenPGP's).
const (
	NoDigest Algorithm = 0
	MD5      Algorithm = 1
	SHA1     Algorithm = 2
	SHA256   Algorithm = 8
	SHA384   Algorithm = 9
	SHA512   Algorithm = 10
)

var algorithms = map[Algorithm]struct {
	name string
	size int
}{MD5: {"md5", 16}, SHA1: {"sha1", 20}, SHA256: {"sha256", 32}, SHA384: {"sha384", 48}, SHA512: {"sha512", 64}}

// String returns the algorithm's usual name.
func (a Algorithm) String() string {
	if known, ok := algorithms[a]; ok {
		return known.name
	}
	return "none"
}

// Size returns the digest's length in bytes, 0 for NoDigest and unknown algorithms.
func (a Algorithm) Size() int { return algorithms[a].size }

// Digest is what the package manager recorded for one file.
type Digest struct {
	Algorithm Algorithm
	Sum       []byte // aliases the snapshot; read-only
}

// String returns "algorithm:hex".
func (d Digest) String() string { return d.Algorithm.String() + ":" + hex.EncodeToString(d.Sum) }

// Equal reports whether sum is the recorded digest; a missing digest equals nothing.
func (d Digest) Equal(sum []byte) bool { return len(d.Sum) != 0 && bytes.Equal(d.Sum, sum) }

// Package is one installed package.
type Package struct {
	Name      string
	Arch      string
	Version   string
	Manager   string // "dpkg" or "rpm"
	Essential bool   // dpkg: Essential: yes or Protected: yes
	Required  bool   // dpkg: Priority: required
}

// Entry is what is known of one path.
type Entry struct {
	Package *Package
	Path    string // as the package recorded it, after diversions
	Digest  Digest // NoDigest for symbolic links, and for files that the package recorded without one
	Config  bool   // a configuration file: the operator may change it
	Script  bool   // a maintainer script of dpkg, which records no digest of them
}

// record is one path of one package; 24 bytes, so that 100,000 files cost little.
type record struct {
	path      uint32 // offset into paths
	digest    uint32 // offset into digests
	pkg       uint32
	length    uint16
	algorithm Algorithm
	config    bool
}

// Snapshot is the state of the package databases at one moment. Immutable, safe for concurrent use.
type Snapshot struct {
	packages []Package
	records  []record
	paths    []byte
	digests  []byte
	table    []uint32 // open addressing: index into records plus one, 0 is free; the length is a power of two
	seed     maphash.Seed

	stamp stamp         // of the databases when reading began
	Taken time.Time     // when reading began
	Took  time.Duration // how long reading took
}

// aliases are directories that are one directory on many systems. The kernel reports the resolved name while the database
// may hold the other. A wrong guess does no harm where the caller compares digests: it can only find the recorded content.
var aliases = [...][2]string{
	{"/usr/bin/", "/bin/"}, {"/usr/sbin/", "/sbin/"}, {"/usr/lib/", "/lib/"}, {"/usr/lib64/", "/lib64/"},
	{"/usr/lib32/", "/lib32/"}, {"/usr/libx32/", "/libx32/"}, {"/usr/bin/", "/usr/sbin/"}, {"/usr/bin/", "/sbin/"},
	{"/usr/lib/", "/usr/lib64/"}, {"/run/", "/var/run/"},
}

// Lookup finds the entry of a path: the path as recorded first, then its names on a system with merged directories
// (/usr/bin/dash for /bin/dash). Symbolic links are not followed; the kernel reports the target, which has its own entry.
func (s *Snapshot) Lookup(path string) (Entry, bool) {
	if i, ok := s.find(path); ok {
		return s.entry(i), true
	}
	for _, alias := range aliases {
		for side := range alias {
			rest, ok := strings.CutPrefix(path, alias[side])
			if !ok {
				continue
			}
			if i, ok := s.find(alias[1-side] + rest); ok {
				return s.entry(i), true
			}
		}
	}
	return s.script(path)
}

// script finds the package of a maintainer script, which dpkg runs from its own directory and does not list.
func (s *Snapshot) script(path string) (Entry, bool) {
	file, ok := strings.CutPrefix(path, dpkgDir+"/info/")
	if !ok || len(s.table) == 0 {
		return Entry{}, false
	}
	dot := strings.LastIndexByte(file, '.')
	if dot < 0 || !slices.Contains(maintainerScripts[:], file[dot+1:]) {
		return Entry{}, false
	}
	name, _, _ := strings.Cut(file[:dot], ":")
	for i := range s.packages {
		if p := &s.packages[i]; p.Name == name && p.Manager == "dpkg" {
			return Entry{Package: p, Path: path, Script: true}, true
		}
	}
	return Entry{}, false
}

var maintainerScripts = [...]string{"preinst", "postinst", "prerm", "postrm", "config"}

// Len returns the number of paths.
func (s *Snapshot) Len() int { return len(s.records) }

// Packages iterates over the installed packages.
func (s *Snapshot) Packages() iter.Seq[*Package] {
	return func(yield func(*Package) bool) {
		for i := range s.packages {
			if !yield(&s.packages[i]) {
				return
			}
		}
	}
}

// Entries iterates over all paths, package by package.
func (s *Snapshot) Entries() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for i := range s.records {
			if !yield(s.entry(uint32(i))) {
				return
			}
		}
	}
}

func (s *Snapshot) entry(i uint32) Entry {
	r := &s.records[i]
	e := Entry{Package: &s.packages[r.pkg], Path: string(s.path(r)), Config: r.config}
	if n := uint32(r.algorithm.Size()); n != 0 {
		e.Digest = Digest{Algorithm: r.algorithm, Sum: s.digests[r.digest : r.digest+n : r.digest+n]}
	}
	return e
}

func (s *Snapshot) path(r *record) []byte { return s.paths[r.path : r.path+uint32(r.length)] }

func (s *Snapshot) find(path string) (uint32, bool) {
	if len(s.table) == 0 {
		return 0, false
	}
	mask := uint64(len(s.table) - 1)
	for at := maphash.String(s.seed, path) & mask; ; at = (at + 1) & mask {
		i := s.table[at]
		if i == 0 {
			return 0, false
		}
		if string(s.path(&s.records[i-1])) == path {
			return i - 1, true
		}
	}
}

// RootOnly reports whether a file with this owner and mode belongs to root and may be written by nobody else, going by
// its mode bits.
func RootOnly(uid, mode uint32) bool { return uid == 0 && mode&0o022 == 0 }
