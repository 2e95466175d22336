package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

	"bailey/internal/bpflsm"
)

// Bounds of one product's share of what all products have together.
const (
	cellShare   = 8 // rules found by the same
	prefixShare = 8 // different lengths of address blocks
)

// key is what a rule is found by: what it is done to if that is named, else who does it.
func (e *entry) key() kernelKey {
	m := &e.rule.Match
	switch {
	case e.target.file.ino != 0:
		return e.target.file.key(byPlace)
	case m.Destination.IsValid():
		a := m.Destination.Addr().As16()
		return kernelKey{
			A: binary.BigEndian.Uint64(a[:8]), B: binary.BigEndian.Uint64(a[8:]), Kind: byDestination, Detail: uint32(prefixBits(m)),
		}
	case e.target.executable.ino != 0:
		return e.target.executable.key(byExecutable)
	case e.target.cgroup != 0:
		return kernelKey{A: e.target.cgroup, Kind: byCgroup}
	}
	return kernelKey{Kind: byAction, Detail: uint32(e.rule.Action)}
}

// prefixBits is the length of a destination's block as IPv6 writes it; -1 without one.
func prefixBits(m *Match) int {
	switch {
	case !m.Destination.IsValid():
		return -1
	case m.Destination.Addr().Is4():
		return 96 + m.Destination.Bits()
	}
	return m.Destination.Bits()
}

// kernelRule is the rule as the programs read it.
func (e *entry) kernelRule() kernelRule {
	r := kernelRule{
		Until: e.until, Cgroup: e.target.cgroup, Level: e.target.level, Action: uint32(e.rule.Action), Product: e.number, Serial: e.serial,
		PortLow: e.rule.Match.PortLow, PortHigh: e.rule.Match.PortHigh,
	}
	if x := e.target.executable; x.ino != 0 {
		r.ExeIno, r.ExeAt = x.ino, x.at()
	}
	if e.rule.Match.File != "" {
		r.Flags |= flagOwn
	}
	return r
}

// image is everything that the programs look things up in, but for the rules themselves.
type image struct {
	cells    map[kernelKey]kernelCell
	devices  map[uint32]bool
	by       [16]uint32
	prefixes []uint32 // +1
	sieve    bpflsm.Sieve
	programs map[string]bool
}

// compile makes the image of all entries. The order of a cell is the order of installation.
func compile(entries map[uint32]*entry) *image {
	im := &image{cells: map[kernelKey]kernelCell{}, devices: map[uint32]bool{}, programs: map[string]bool{}}
	all := slices.SortedFunc(maps.Values(entries), func(a, b *entry) int { return int(a.serial) - int(b.serial) })
	bits := map[uint32]bool{}
	used := map[kernelKey]int{}
	for _, e := range all {
		key := e.key()
		cell := im.cells[key]
		if used[key] < cellSize { // share saw to it
			cell.Slots[used[key]] = e.slot
			used[key]++
		}
		im.cells[key] = cell
		im.by[e.rule.Action] |= 1 << key.Kind
		switch key.Kind {
		case byPlace:
			im.devices[e.target.file.dev] = true
			im.sieve.Add(key.A ^ key.B) // as passes in judge.h has it
		case byDestination:
			bits[key.Detail+1] = true
		}
		for _, p := range hooks[e.rule.Action] {
			im.programs[p] = true
		}
	}
	im.prefixes = slices.Sorted(maps.Keys(bits))
	slices.Reverse(im.prefixes)
	return im
}

// ErrFull says that a product, or all of them, have as many rules as they can have.
var ErrFull = errors.New("no more room for rules")

// share says whether there is room for one more rule, without taking from what other products can have.
func share(entries map[uint32]*entry, e *entry) error {
	key := e.key()
	same, sameOwn := 0, 0
	bits, bitsOwn := map[int]bool{prefixBits(&e.rule.Match): true}, map[int]bool{prefixBits(&e.rule.Match): true}
	devices := map[uint32]bool{e.target.file.dev: true}
	for _, other := range entries {
		own := other.number == e.number
		if other.key() == key {
			same++
			if own {
				sameOwn++
			}
		}
		bits[prefixBits(&other.rule.Match)] = true
		if own {
			bitsOwn[prefixBits(&other.rule.Match)] = true
		}
		devices[other.target.file.dev] = true
	}
	delete(bits, -1)
	delete(bitsOwn, -1)
	switch {
	case sameOwn >= cellShare:
		return fmt.Errorf("%w: %d rules of this product for %s, at most %d for the same thing", ErrFull, sameOwn, e.rule.Match.String(), cellShare)
	case same >= cellSize:
		return fmt.Errorf("%w: %d rules of all products for %s", ErrFull, same, e.rule.Match.String())
	case e.rule.Match.Destination.IsValid() && len(bitsOwn) > prefixShare:
		return fmt.Errorf("%w: %d different lengths of address blocks, at most %d", ErrFull, len(bitsOwn), prefixShare)
	case len(bits) > maxPrefixes:
		return fmt.Errorf("%w: %d different lengths of address blocks of all products", ErrFull, len(bits))
	case len(devices) > 250:
		return fmt.Errorf("%w: files on %d filesystems", ErrFull, len(devices))
	}
	return nil
}

// apply puts an image in force: first all that is more, then away with all that is less. Rules that hold before and after hold meanwhile.
func (k *kernel) apply(im *image) error {
	if err := k.attach(im.programs); err != nil {
		return err
	}
	for dev := range im.devices {
		if err := k.Maps[mapDevices].Put(dev, uint32(1)); err != nil {
			return fmt.Errorf("enter a filesystem: %w", err)
		}
	}
	im.sieve.Widen(&k.control.Sieve)
	for key, cell := range im.cells {
		if err := k.Maps[mapPlaces].Put(key, cell); err != nil {
			return fmt.Errorf("enter what a rule holds for: %w", err)
		}
	}
	bpflsm.Store(k.control.Prefixes[:], im.prefixes)
	bpflsm.Store(k.control.By[:], im.by[:])
	if err := k.detach(im.programs); err != nil {
		return fmt.Errorf("detach what no rule needs: %w", err)
	}
	return k.prune(im)
}

// prune removes from the maps what is not in the image.
func (k *kernel) prune(im *image) error {
	var key kernelKey
	var cell kernelCell
	var gone []kernelKey
	places := k.Maps[mapPlaces].Iterate()
	for places.Next(&key, &cell) {
		if _, ok := im.cells[key]; !ok {
			gone = append(gone, key)
		}
	}
	var dev, one uint32
	var left []uint32
	devices := k.Maps[mapDevices].Iterate()
	for devices.Next(&dev, &one) {
		if !im.devices[dev] {
			left = append(left, dev)
		}
	}
	errs := []error{places.Err(), devices.Err()}
	for _, key := range gone {
		errs = append(errs, k.Maps[mapPlaces].Delete(key))
	}
	for _, dev := range left {
		errs = append(errs, k.Maps[mapDevices].Delete(dev))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what no rule holds for: %w", err)
	}
	im.sieve.Narrow(&k.control.Sieve)
	return nil
}

// write puts one entry into its slot. The note comes first: a rule without one could not be taken back by the next agent.
func (k *kernel) write(e *entry) error {
	note, err := e.note()
	if err != nil {
		return err
	}
	if err := k.Maps[mapNotes].Put(e.slot, note); err != nil {
		return fmt.Errorf("note a rule: %w", err)
	}
	if err := k.Maps[mapRules].Put(e.slot, e.kernelRule()); err != nil {
		return errors.Join(fmt.Errorf("enter a rule: %w", err), k.erase(e.slot))
	}
	return nil
}

// erase frees a slot.
func (k *kernel) erase(slot uint32) error {
	err := k.Maps[mapRules].Put(slot, kernelRule{})
	if gone := k.Maps[mapNotes].Delete(slot); !errors.Is(gone, ebpf.ErrKeyNotExist) {
		err = errors.Join(err, gone)
	}
	err = errors.Join(err, k.Maps[mapHits].Put(slot, uint64(0)))
	if err != nil {
		return fmt.Errorf("remove a rule: %w", err)
	}
	return nil
}
