// Package bpffs says where BPF objects can be pinned, and does the pinning of what must be there whole or not at all. It keeps no list
// of what is pinned.
//
// Invariant: what Pin made under its complete name has everything in it.
package bpffs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNone says that a directory is in no bpffs.
var ErrNone = errors.New("no bpffs is mounted there")

// Unfinished begins the names of directories that Pin is still at work in, or was when its process died.
const Unfinished = "new-"

// Check makes sure that a directory is in a bpffs.
func Check(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look for a bpffs at %s: %w", dir, err)
	}
	if st.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("look for a bpffs at %s: %w", dir, ErrNone)
	}
	return nil
}

// MakeDir makes a directory for pins, whose parent must be in a bpffs. It may be there already.
func MakeDir(dir string) error {
	if err := Check(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the directory for pins: %w", err)
	}
	return nil
}

// Name returns a name that a bpffs allows: one without dots.
func Name(of string) string { return strings.ReplaceAll(of, ".", "_") }

// Pinner is anything that can be pinned.
type Pinner interface{ Pin(path string) error }

// Pin pins all of it, by the names given, in dir/name, or nothing.
func Pin(dir, name string, all map[string]Pinner) error {
	work := filepath.Join(dir, Unfinished+name)
	if err := os.RemoveAll(work); err != nil {
		return fmt.Errorf("remove unfinished pins: %w", err)
	}
	if err := os.Mkdir(work, 0o700); err != nil {
		return fmt.Errorf("make a directory for pins: %w", err)
	}
	for as, p := range all {
		if err := p.Pin(filepath.Join(work, as)); err != nil {
			return errors.Join(fmt.Errorf("pin %s: %w", as, err), os.RemoveAll(work))
		}
	}
	if err := os.Rename(work, filepath.Join(dir, name)); err != nil {
		return errors.Join(fmt.Errorf("mark the pins as complete: %w", err), os.RemoveAll(work))
	}
	return nil
}

// Remove removes pins with all below.
func Remove(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	return nil
}
