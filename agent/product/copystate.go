package product

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/product/manifest"
)

// stateCopy copies a product's state, which the product may change meanwhile, for a run that must not touch it: files and
// folders. Nothing of it is followed out of the directory, and nothing in it can make the copier wait.
type stateCopy struct {
	from, to *os.Root
	uid      int
	left     int64 // bytes
	files    int
	skipped  int // neither file nor folder, or gone
}

// errTooMuch ends a copy that would be larger than the product's limit.
var errTooMuch = errors.New("more than its limit")

// copyState copies the directory from, if there is one, into the empty directory to, for uid. What does not fit or cannot be copied is left out and
// said in note.
func copyState(from, to string, uid uint32, limit int64) (note string, err error) {
	src, err := os.OpenRoot(from)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("copy the product's state: %w", err)
	}
	defer func() { _ = src.Close() }()
	dst, err := os.OpenRoot(to)
	if err != nil {
		return "", fmt.Errorf("copy the product's state: %w", err)
	}
	defer func() { _ = dst.Close() }()
	c := stateCopy{from: src, to: dst, uid: int(uid), left: limit}
	err = fs.WalkDir(src.FS(), ".", c.visit)
	switch {
	case errors.Is(err, errTooMuch):
		return fmt.Sprintf("of its state it had only a part: there is more than %v", manifest.Size(limit)), nil
	case err != nil:
		return "", fmt.Errorf("copy the product's state: %w", err)
	case c.skipped > 0:
		return fmt.Sprintf("of its state it did not have %d links, sockets or files that went meanwhile", c.skipped), nil
	}
	return "", nil
}

// What is copied for good must be as it was at one moment.
const (
	copyTries = 5
	copyPause = 50 * time.Millisecond
)

// copyWholeState is copyState where nothing may be left out, and nothing may change while it is copied.
func copyWholeState(from, to string, uid uint32, limit int64) error {
	for range copyTries {
		before, err := stateStamp(from)
		if err != nil {
			return err
		}
		note, err := copyState(from, to, uid, limit)
		if err != nil {
			return err
		}
		after, err := stateStamp(from)
		switch {
		case err != nil:
			return err
		case before == after && note == "":
			return nil
		case before == after:
			return errors.New(note)
		}
		if err := emptyDir(to); err != nil {
			return err
		}
		<-time.After(copyPause)
	}
	return errors.New("its state does not stand still to be copied")
}

// stateStamp is another one when anything in a state directory was written, made, moved or removed.
func stateStamp(dir string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		if err == nil {
			fmt.Fprintln(sum, path, st.Ino, st.Mode, st.Size, st.Mtim.Nano(), st.Ctim.Nano())
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("look at the product's state: %w", err)
	}
	return string(sum.Sum(nil)), nil
}

// emptyDir removes what is in a directory.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

func (c *stateCopy) visit(path string, d fs.DirEntry, err error) error {
	if c.files++; c.files > maxStateFiles {
		return errTooMuch
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.skipped++
		return nil
	case err != nil:
		return err
	case path == ".":
		return nil
	case d.IsDir():
		return errors.Join(c.to.Mkdir(path, 0o700), c.to.Lchown(path, c.uid, c.uid))
	case d.Type() == 0:
		return c.file(path)
	}
	c.skipped++
	return nil
}

func (c *stateCopy) file(path string) error {
	in, st, err := openRegular(c.from, path)
	if err != nil {
		c.skipped++
		return nil
	}
	defer func() { _ = in.Close() }()
	if st.Size() > c.left {
		return errTooMuch
	}
	out, err := c.to.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, st.Mode().Perm()|0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(in, c.left+1))
	if c.left -= n; err == nil && c.left < 0 {
		err = errTooMuch
	}
	return errors.Join(err, out.Chown(c.uid, c.uid), out.Close())
}
