package recorder

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// file is a segment that is being written.
type file interface {
	io.WriteCloser
	Truncate(size int64) error
	Sync() error
}

// disk is the file system below the recorder.
type disk interface {
	// Create makes a file that must not exist.
	Create(path string) (file, error)
	Remove(path string) error
	// Free returns how many bytes an unprivileged writer could still write, and how many the file system holds in all.
	Free(dir string) (free, all uint64, err error)
}

// realDisk is the machine's.
type realDisk struct{}

func (realDisk) Create(path string) (file, error) {
	// Appending: after a write that failed half-way the file is cut, and the next write has to follow what is left.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err // not a *os.File that is nil within a file
	}
	return f, nil
}

func (realDisk) Remove(path string) error { return os.Remove(path) }

func (realDisk) Free(dir string) (free, all uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("ask for free space: %w", err)
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}

// openSegment opens a segment for reading. What is no regular file is nobody's segment: a pipe would never end.
func openSegment(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}
