package selftest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// yard is the self-test's own place: a directory, and in it a filesystem that is the only thing watched.
type yard struct {
	dir     string
	scratch string
}

func newYard() (*yard, error) {
	dir, err := os.MkdirTemp("", "bailey-selftest-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	y := &yard{dir: dir, scratch: filepath.Join(dir, "scratch")}
	// Others may enter, because the contained product's user looks for nothing here by luck of a mode.
	err = errors.Join(os.Chmod(dir, 0o755), os.Mkdir(y.scratch, 0o755))
	if err == nil {
		err = unix.Mount("bailey-selftest", y.scratch, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=0755,size=16m")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a scratch filesystem: %w", err), os.RemoveAll(dir))
	}
	return y, nil
}

// close unmounts the scratch filesystem, at once or as soon as nobody uses it any more, and removes the directory.
func (y *yard) close() error {
	err := unix.Unmount(y.scratch, 0)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(y.scratch, unix.MNT_DETACH)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", y.scratch, err)
	}
	return os.RemoveAll(y.dir)
}

// write makes a file in the scratch filesystem.
func (y *yard) write(name, text string, mode os.FileMode) (string, error) {
	path := filepath.Join(y.scratch, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	return path, nil
}

// script makes a program. Its interpreter lies outside the scratch filesystem, so one question is asked about it.
func (y *yard) script(name string) (string, error) {
	return y.write(name, "#!/bin/sh\nexit 0\n", 0o755)
}
