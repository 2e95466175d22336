package guard

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"bailey/internal/bpffs"
	"bailey/internal/bpflsm"
)

// completePrefix and the schema name a directory that all of a guard is in.
const completePrefix = "guard-"

// makePins makes the directory for pins.
func makePins(dir string) error {
	err := bpffs.MakeDir(dir)
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: %w", ErrNotTrusted, err)
	}
	return err
}

// adopt opens what an agent of the same version pinned, nil if there is none.
func adopt(pins string, b *bpflsm.Blueprint) (*bpflsm.Parts, error) {
	dir := filepath.Join(pins, completePrefix+b.Schema)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	k, err := b.Open(dir)
	if errors.Is(err, os.ErrPermission) {
		err = fmt.Errorf("%w: %w", ErrNotTrusted, err)
	}
	if err != nil {
		return nil, fmt.Errorf("adopt the guard in force: %w", err)
	}
	for name := range b.Spec.Programs {
		if k.Links[name] == nil {
			return nil, errors.Join(fmt.Errorf("adopt the guard in force: %s is not attached: %w", name, os.ErrNotExist), k.Close())
		}
	}
	return k, nil
}

// dropOthers removes what other versions, and agents that were killed while they pinned, left. Until then both are in force.
func dropOthers(pins string, b *bpflsm.Blueprint, log *slog.Logger) {
	entries, err := os.ReadDir(pins)
	if err != nil {
		log.Warn("pins cannot be listed", "err", err)
		return
	}
	for _, e := range entries {
		if e.Name() == completePrefix+b.Schema {
			continue
		}
		if err := bpffs.Remove(filepath.Join(pins, e.Name())); err != nil {
			log.Warn("an older guard stays in force", "path", e.Name(), "err", err)
		}
	}
}
