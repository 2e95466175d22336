package product

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"bailey/internal/durable"
)

// Bounds of one release.
const (
	maxReleaseBytes = 1 << 30
	maxReleaseFiles = 20_000
)

// releaseCopy copies a product folder into a staging folder: root's files, writable by nobody, no set-id bits, nothing but
// regular files, folders and symbolic links that stay inside.
type releaseCopy struct {
	from, to *os.Root
	sum      hash.Hash
	bytes    int64
	files    int
	dirs     []string
}

// copyRelease copies the folder from into the empty folder to and returns the hash of its content.
func copyRelease(from, to string) (string, error) {
	src, err := os.OpenRoot(from)
	if err != nil {
		return "", fmt.Errorf("open product folder: %w", err)
	}
	defer func() { _ = src.Close() }()
	dst, err := os.OpenRoot(to)
	if err != nil {
		return "", fmt.Errorf("open staging folder: %w", err)
	}
	defer func() { _ = dst.Close() }()
	c := releaseCopy{from: src, to: dst, sum: sha256.New()}
	if err := fs.WalkDir(src.FS(), ".", c.visit); err != nil {
		return "", fmt.Errorf("copy product folder: %w", err)
	}
	if err := fs.WalkDir(dst.FS(), ".", c.check); err != nil {
		return "", fmt.Errorf("copy product folder: %w", err)
	}
	for _, d := range c.dirs {
		if err := durable.SyncDir(filepath.Join(to, d)); err != nil {
			return "", fmt.Errorf("copy product folder: %w", err)
		}
	}
	return fmt.Sprintf("%x", c.sum.Sum(nil)[:6]), nil
}

// visit copies one entry; WalkDir's order makes the hash the same for the same content.
func (c *releaseCopy) visit(path string, d fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	if c.files++; c.files > maxReleaseFiles {
		return fmt.Errorf("more than %d files", maxReleaseFiles)
	}
	switch d.Type() {
	case fs.ModeDir:
		c.dirs = append(c.dirs, path)
		c.record("dir", path, "")
		if path == "." {
			return nil
		}
		return errors.Join(c.to.Mkdir(path, 0o755), c.to.Chmod(path, 0o755))
	case fs.ModeSymlink:
		target, err := c.from.Readlink(path)
		if err != nil {
			return err
		}
		c.record("link", path, target)
		return c.to.Symlink(target, path)
	case 0:
		return c.file(path)
	}
	return fmt.Errorf("%s is neither file, folder nor symbolic link", path)
}

func (c *releaseCopy) file(path string) error {
	in, st, err := openRegular(c.from, path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	if st.Size() > maxReleaseBytes-c.bytes {
		return fmt.Errorf("larger than %d MiB", maxReleaseBytes>>20)
	}
	mode, word := os.FileMode(0o644), "file"
	if st.Mode()&0o100 != 0 {
		mode, word = 0o755, "program"
	}
	out, err := c.to.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	own := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, own), io.LimitReader(in, maxReleaseBytes-c.bytes+1))
	if c.bytes += n; err == nil && c.bytes > maxReleaseBytes {
		err = fmt.Errorf("larger than %d MiB", maxReleaseBytes>>20)
	}
	if err == nil {
		err = errors.Join(out.Chmod(mode), out.Sync()) // whatever the agent's umask is
	}
	c.record(word, path, string(own.Sum(nil)))
	return errors.Join(err, out.Close())
}

// openRegular opens a file for reading. It does not block, should it have become a fifo since it was listed.
func openRegular(root *os.Root, path string) (*os.File, fs.FileInfo, error) {
	f, err := root.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file any more", path)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, st, nil
}

// record feeds the hash so that no two trees give the same bytes.
func (c *releaseCopy) record(word, path, content string) {
	_, _ = fmt.Fprintf(c.sum, "%s %d:%s %d:%s\n", word, len(path), path, len(content), content) // a hash takes everything
}

// check refuses symbolic links that lead out, in the copy, where nobody can exchange them any more.
func (c *releaseCopy) check(path string, d fs.DirEntry, err error) error {
	if err != nil || d.Type() != fs.ModeSymlink {
		return err
	}
	if _, err := c.to.Stat(path); err != nil {
		return fmt.Errorf("symbolic link leads out of the folder or nowhere: %w", err)
	}
	return nil
}
