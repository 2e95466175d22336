package process

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"bailey/internal/bpffs"
)

const systemBPFFS = "/sys/fs/bpf"

// BPFFS is a place for pins.
type BPFFS struct {
	Pins string // for Config.Pins: a directory, which need not exist yet

	mounted string // where FindBPFFS mounts; empty where the system has a bpffs
}

// FindBPFFS returns the place for the pins of the one agent that has run as its run directory: in the system's bpffs, or
// where there is none in one that it mounts, or that an agent before mounted, at run/bpf.
func FindBPFFS(run string) (*BPFFS, error) { return findBPFFS(systemBPFFS, run) }

func findBPFFS(system, run string) (*BPFFS, error) {
	run, err := filepath.Abs(run)
	if err != nil {
		return nil, fmt.Errorf("find a bpffs: %w", err)
	}
	name := sha256.Sum256([]byte(run))
	if bpffs.Check(system) == nil {
		return &BPFFS{Pins: filepath.Join(system, "bailey-"+hex.EncodeToString(name[:4]))}, nil
	}
	dir := filepath.Join(run, "bpf")
	b := &BPFFS{Pins: filepath.Join(dir, "process"), mounted: dir}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("make a directory for a bpffs: %w", err)
	}
	if bpffs.Check(dir) == nil {
		return b, nil
	}
	if err := unix.Mount("bailey", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return nil, errors.Join(fmt.Errorf("mount a bpffs at %s: %w", dir, err), os.Remove(dir))
	}
	return b, nil
}

// Close unmounts what FindBPFFS mounts, for a clean end: after the sensor's Close, and not for a successor.
func (b *BPFFS) Close() error {
	if b.mounted == "" {
		return nil
	}
	if err := unix.Unmount(b.mounted, 0); err != nil {
		return fmt.Errorf("unmount the bpffs at %s: %w", b.mounted, err)
	}
	if err := os.Remove(b.mounted); err != nil {
		return fmt.Errorf("remove the directory of the bpffs: %w", err)
	}
	return nil
}
