package client

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"bailey/update/bundle"
	"bailey/update/release"
	"bailey/update/trust"

	"golang.org/x/sys/unix"
)

// Reserve is how much of a disk updates leave free, so that the machine goes on whatever comes in.
const Reserve = 64 << 20

// room says why so many bytes more are not to be had on the disk: nothing is begun that would fill it.
func (c *Client) room(need int64) error {
	if c.cfg.Disk > 0 {
		used, err := c.used()
		if err != nil {
			return err
		}
		if used+need > c.cfg.Disk {
			return noRoom("%d bytes are needed, %d are used by updates, and they may use %d", need, used, c.cfg.Disk)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(c.cfg.Dir, &st); err != nil {
		return fmt.Errorf("look at the disk of %s: %w", c.cfg.Dir, err)
	}
	if free := int64(st.Bavail) * st.Bsize; free-need < Reserve {
		return noRoom("%d bytes are needed, %d are free, and %d must stay", need, free, Reserve)
	}
	return nil
}

// fetchRoom says why a target is not to be had on the disk. One that comes by way of another directory is there twice for a moment.
func (c *Client) fetchRoom(t trust.Target) error {
	need := t.Length - c.fetched(t)
	if c.cfg.Partial != c.downloads() {
		need += t.Length
	}
	return c.room(need)
}

func (c *Client) downloads() string { return filepath.Join(c.cfg.Dir, downloadsDir) }

func noRoom(format string, args ...any) error {
	return &trust.Refusal{What: "the update", Class: trust.ErrSpace, Reason: fmt.Sprintf(format, args...)}
}

// used is how many bytes the files of updates have.
func (c *Client) used() (n int64, err error) {
	dirs := []string{c.downloads(), filepath.Join(c.cfg.Dir, stagedDir), filepath.Join(c.cfg.Dir, basesDir)}
	if c.cfg.Partial != c.downloads() {
		dirs = append(dirs, c.cfg.Partial)
	}
	for _, dir := range dirs {
		size, err := sizeOf(dir)
		if err != nil {
			return 0, err
		}
		n += size
	}
	return n, nil
}

// sizeOf is how many bytes the files below a directory have. What goes meanwhile is not counted.
func sizeOf(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				n += info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("add up %s: %w", dir, err)
	}
	return n, err
}

// stagingRoom says why what was fetched cannot be unpacked and put together with what is installed: its files are there twice then.
func (c *Client) stagingRoom(id release.Stream, u *Update) error {
	f, err := os.Open(u.Bundle)
	if err != nil {
		return err
	}
	defer f.Close()
	var files int64
	if u.Base == "" {
		m, merr := bundle.ReadManifest(f, bundle.Limits{})
		files, err = m.Bytes(), merr
	} else {
		files, err = bundle.DeltaBytes(f, bundle.Limits{})
	}
	if err != nil {
		return nil // unpacking it says what is wrong
	}
	in, err := c.installed(id.Product)
	if err != nil || in.Name == "" {
		return errors.Join(err, c.room(2*files))
	}
	installed, err := sizeOf(in.Folder)
	return errors.Join(err, c.room(2*files+installed))
}
