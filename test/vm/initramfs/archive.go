// Package initramfs packs what a virtual machine boots with: the guest's init, the kernel's modules and whatever files the host
// has for it. It starts nothing.
//
// Invariant: what it writes is a cpio archive that everybody else reads too.
package initramfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Archive writes a cpio archive in the "newc" format that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst).
// Not safe for concurrent use.
type Archive struct {
	f    *os.File
	w    *bufio.Writer
	ino  int
	dirs map[string]bool
	// libraries that are in it already
	files map[string]bool
	size  int64
}

// Create starts an archive. Close completes it.
func Create(path string) (*Archive, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &Archive{f: f, w: bufio.NewWriterSize(f, 1<<20), dirs: map[string]bool{}, files: map[string]bool{}}, nil
}

// Close writes the archive's end.
func (a *Archive) Close() error {
	return errors.Join(a.entry("TRAILER!!!", 0, 0, nil), a.w.Flush(), a.f.Close())
}

func (a *Archive) pad() error {
	for ; a.size%4 != 0; a.size++ {
		if err := a.w.WriteByte(0); err != nil {
			return err
		}
	}
	return nil
}

// entry writes one file, directory or link with the directories above it.
func (a *Archive) entry(name string, mode uint32, size int64, content io.Reader) error {
	name = strings.TrimPrefix(path.Clean(name), "/")
	if dir := path.Dir(name); dir != "." && !a.dirs[dir] {
		if err := a.entry(dir, 0o40755, 0, nil); err != nil {
			return err
		}
	}
	if mode&0o170000 == 0o40000 {
		if a.dirs[name] {
			return nil
		}
		a.dirs[name] = true
	}
	a.ino++
	n, err := fmt.Fprintf(a.w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.ino, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	if err != nil {
		return err
	}
	a.size += int64(n)
	if err := a.pad(); err != nil || content == nil {
		return err
	}
	copied, err := io.Copy(a.w, content)
	if err != nil {
		return err
	}
	if copied != size {
		return fmt.Errorf("%s changed while it was read", name)
	}
	a.size += copied
	return a.pad()
}

// Text adds a file with this content.
func (a *Archive) Text(name, content string) error {
	return a.entry(name, 0o100644, int64(len(content)), strings.NewReader(content))
}

// Link adds a symbolic link.
func (a *Archive) Link(name, target string) error {
	return a.entry(name, 0o120777, int64(len(target)), strings.NewReader(target))
}

// File adds the file from as name.
func (a *Archive) File(name, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return a.entry(name, 0o100000|uint32(info.Mode().Perm()), info.Size(), f)
}

// Tree adds everything below from, if it exists.
func (a *Archive) Tree(name, from string) error {
	if _, err := os.Stat(from); err != nil {
		return nil
	}
	return filepath.WalkDir(from, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := path.Join(name, filepath.ToSlash(strings.TrimPrefix(file, from)))
		switch {
		case d.IsDir():
			return a.entry(target, 0o40755, 0, nil)
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(file)
			if err != nil {
				return err
			}
			return a.Link(target, to)
		case d.Type().IsRegular():
			return a.File(target, file)
		}
		return nil
	})
}
