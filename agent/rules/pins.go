package rules

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"

	"bailey/internal/bpffs"
	"bailey/internal/bpflsm"
)

// completePrefix and the schema name a directory that all of it is in.
const completePrefix = "rules-"

// adopt opens what an agent of the same version pinned, nil if there is nothing.
func adopt(pins string, b *bpflsm.Blueprint) (*kernel, error) {
	dir := filepath.Join(pins, completePrefix+b.Schema)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	k, err := open(dir, b)
	if err != nil {
		return nil, fmt.Errorf("adopt the rules in force: %w", err)
	}
	return k, nil
}

// open opens what is pinned in dir. Only the links that a rule needs are there.
func open(dir string, b *bpflsm.Blueprint) (*kernel, error) {
	parts, err := b.Open(dir)
	if err != nil {
		return nil, err
	}
	for name := range b.Spec.Programs {
		if parts.Programs[name] == nil {
			return nil, errors.Join(fmt.Errorf("open the program %s: %w", name, os.ErrNotExist), parts.Close())
		}
	}
	k, err := newKernel(parts, b)
	if err == nil {
		k.dir = dir
	}
	return k, err
}

// pin pins the maps and programs, all or nothing. Links are pinned one by one when they are made.
func (k *kernel) pin(pins string, b *bpflsm.Blueprint) error {
	name := completePrefix + b.Schema
	if err := k.Pin(pins, name); err != nil {
		return err
	}
	k.dir = filepath.Join(pins, name)
	return nil
}

// setAside gives pins of this version the name of another one's.
func setAside(pins, schema string) error {
	aside := filepath.Join(pins, completePrefix+"damaged")
	if err := bpffs.Remove(aside); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(pins, completePrefix+schema), aside); err != nil {
		return fmt.Errorf("set damaged pins aside: %w", err)
	}
	return nil
}

// others returns the directories that agents of other versions, and those killed while they pinned, left.
func others(pins, schema string) (whole, broken []string) {
	entries, err := os.ReadDir(pins)
	if err != nil {
		return nil, nil
	}
	for _, e := range entries {
		path := filepath.Join(pins, e.Name())
		switch {
		case e.Name() == completePrefix+schema:
		case strings.HasPrefix(e.Name(), completePrefix):
			whole = append(whole, path)
		default:
			broken = append(broken, path)
		}
	}
	return whole, broken
}

// earlier reads the rules that an agent of another version left in dir, from the one map whose form never changes.
func earlier(dir string) ([]noted, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, bpflsm.MapPin(mapNotes)), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("read the rules of another version: %w", err)
	}
	defer m.Close() //nolint:errcheck // nothing was written
	all, err := readNotes(m)
	if err != nil {
		return nil, err
	}
	hits, err := ebpf.LoadPinnedMap(filepath.Join(dir, bpflsm.MapPin(mapHits)), &ebpf.LoadPinOptions{ReadOnly: true})
	if err == nil {
		defer hits.Close() //nolint:errcheck // nothing was written
	}
	var out []noted
	for slot, n := range all {
		var more uint64
		if hits != nil && hits.Lookup(slot, &more) == nil {
			n.Hits += more
		}
		out = append(out, n)
	}
	return out, nil
}
