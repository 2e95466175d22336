package packagedb

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
)

// maxHeader bounds one package header; the largest real ones, kernel sources with 100,000 files, have some 20 MiB.
const maxHeader = 64 << 20

// errDamaged is the class of everything that cannot be in a sound rpm database.
var errDamaged = errors.New("damaged rpm database")

// rpmFormats are the files that the backends keep their package headers in, newest backend first.
var rpmFormats = [...]struct {
	file    string
	headers func(f io.ReaderAt, size int64, wal []byte) iter.Seq2[[]byte, error]
}{
	{"rpmdb.sqlite", sqliteHeaders}, // Fedora 33+, RHEL 9+
	{"Packages.db", ndbHeaders},     // SUSE
	{"Packages", bdbHeaders},        // RHEL 8 and older
}

// findRPM returns the path of the rpm database below root, or fs.ErrNotExist.
func findRPM(root string) (string, error) {
	for _, dir := range [...]string{"/var/lib/rpm", "/usr/lib/sysimage/rpm"} {
		for _, format := range rpmFormats {
			path := filepath.Join(root, dir, format.file)
			if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
				return path, err
			}
		}
	}
	return "", fs.ErrNotExist
}

// readRPM adds everything of one rpm database to b. One header that cannot be read fails the whole: a half-read
// database would call good files unknown. So does a database that is written while it is read.
func readRPM(b *builder, path string) error {
	before, beforeWAL := stampOf(path), stampOf(path+"-wal")
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open rpm database: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("stat rpm database: %w", err)
	}
	wal, err := os.ReadFile(path + "-wal")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read rpm write-ahead log: %w", err)
	}
	for _, format := range rpmFormats {
		if format.file != filepath.Base(path) {
			continue
		}
		for header, err := range format.headers(f, info.Size(), wal) {
			if err == nil {
				err = addRPMPackage(b, header)
			}
			if err != nil {
				return fmt.Errorf("read %s: %w", path, err)
			}
		}
	}
	if before != stampOf(path) || beforeWAL != stampOf(path+"-wal") {
		return fmt.Errorf("read %s: it was written meanwhile", path)
	}
	return nil
}

// rpm's file flags and states that matter here.
const (
	fileConfig = 1 << 0
	fileGhost  = 1 << 6 // owned, not delivered
	modeType   = 0o170000
	modeDir    = 0o040000
)

func addRPMPackage(b *builder, blob []byte) error {
	h, err := parseHeader(blob)
	if err != nil {
		return err
	}
	version := h.text(tagVersion) + "-" + h.text(tagRelease)
	if epoch := h.int32s(tagEpoch); len(epoch) == 1 {
		version = fmt.Sprintf("%d:%s", epoch[0], version)
	}
	pkg := b.addPackage(Package{Name: h.text(tagName), Arch: h.text(tagArch), Version: version, Manager: "rpm"})
	names, dirs, index := h.texts(tagBaseNames), h.texts(tagDirNames), h.int32s(tagDirIndexes)
	if len(index) != len(names) {
		return fmt.Errorf("%w: package %s has %d names and %d directory indexes", errDamaged, h.text(tagName), len(names), len(index))
	}
	algorithm := MD5 // what rpm used before it wrote the algorithm down
	if a := h.int32s(tagFileDigestAlgo); len(a) == 1 {
		algorithm = Algorithm(a[0])
	}
	digests, flags, modes, states := h.texts(tagFileDigests), h.int32s(tagFileFlags), h.int16s(tagFileModes), h.bytes(tagFileStates)
	for i, name := range names {
		if index[i] >= uint32(len(dirs)) {
			return fmt.Errorf("%w: package %s names directory %d of %d", errDamaged, h.text(tagName), index[i], len(dirs))
		}
		if at(flags, i)&fileGhost != 0 || at(states, i) != 0 || at(modes, i)&modeType == modeDir {
			continue
		}
		r := b.addFile(pkg, dirs[index[i]]+name)
		if r == nil {
			continue
		}
		r.config = at(flags, i)&fileConfig != 0
		b.setDigest(r, algorithm, []byte(at(digests, i)))
	}
	return nil
}

// at returns s[i], or the zero value where a header is shorter than its list of names.
func at[T any](s []T, i int) (v T) {
	if i < len(s) {
		v = s[i]
	}
	return v
}
