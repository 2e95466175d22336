package bundle

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bailey/update/release"

	"github.com/klauspost/compress/zstd"
)

// window is how far back a bundle's compression looks; whoever unpacks it needs as much memory.
const window = 8 << 20

// Pack writes a bundle of all files in dir to w. Anything but directories and regular files is an error. An empty directory is left out.
func Pack(w io.Writer, dir string, d release.Description, l Limits) (Manifest, error) {
	l = l.orDefault()
	if err := d.Check(); err != nil {
		return Manifest{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Manifest{}, fmt.Errorf("pack %s: %w", dir, err)
	}
	defer func() { _ = root.Close() }()
	m := Manifest{Release: d}
	if m.Files, err = list(root, l); err != nil {
		return Manifest{}, fmt.Errorf("pack %s: %w", dir, err)
	}
	if err := m.check(l); err != nil {
		return Manifest{}, fmt.Errorf("pack %s: %w", dir, err)
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithWindowSize(window), zstd.WithEncoderCRC(true))
	if err != nil {
		return Manifest{}, fmt.Errorf("pack %s: %w", dir, err)
	}
	if err := errors.Join(writeTar(z, root, m), z.Close()); err != nil {
		return Manifest{}, fmt.Errorf("pack %s: %w", dir, err)
	}
	return m, nil
}

// list finds the files below root and their digests, in order of their paths.
func list(root *os.Root, l Limits) ([]File, error) {
	var out []File
	err := fs.WalkDir(root.FS(), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if len(out) == l.Files {
			return fmt.Errorf("more than %d files", l.Files)
		}
		if !e.Type().IsRegular() {
			return fmt.Errorf("%s is no regular file", p)
		}
		f, err := describe(root, filepath.ToSlash(p), l)
		out = append(out, f)
		return err
	})
	slices.SortFunc(out, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return out, err
}

func describe(root *os.Root, p string, l Limits) (File, error) {
	f, err := root.Open(p)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return File{}, err
	}
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, l.File+1))
	if err != nil {
		return File{}, err
	}
	return File{Path: p, Size: n, SHA256: hex.EncodeToString(h.Sum(nil)), Exec: info.Mode()&0o111 != 0}, nil
}

func writeTar(w io.Writer, root *os.Root, m Manifest) error {
	t := tar.NewWriter(w)
	text, err := m.encode()
	if err != nil {
		return err
	}
	if err := t.WriteHeader(header(File{Path: Name, Size: int64(len(text))})); err != nil {
		return err
	}
	if _, err := t.Write(text); err != nil {
		return err
	}
	for _, f := range m.Files {
		if err := writeFile(t, root, f); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return t.Close()
}

// writeFile writes what was described before; a file that has changed since is an error.
func writeFile(t *tar.Writer, root *os.Root, f File) error {
	in, err := root.Open(f.Path)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := t.WriteHeader(header(f)); err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(t, io.TeeReader(io.LimitReader(in, f.Size), h))
	if err != nil {
		return err
	}
	if n != f.Size || hex.EncodeToString(h.Sum(nil)) != f.SHA256 {
		return errors.New("it changed while it was packed")
	}
	return nil
}

// header says nothing but the path, the size and whether it is a program: who packed it and when is nobody's business.
func header(f File) *tar.Header {
	return &tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: f.Path, Size: f.Size, Mode: int64(mode(f)), ModTime: time.Unix(0, 0)}
}

func mode(f File) fs.FileMode {
	if f.Exec {
		return 0o755
	}
	return 0o644
}
