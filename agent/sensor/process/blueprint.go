package process

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// blueprint is the BPF object as it is to be loaded, and the hash of all that makes two generations of programs one.
type blueprint struct {
	spec   *ebpf.CollectionSpec
	schema string // hex digits

	wantedAt, countsAt, quietAt uint64 // in the map of the variables
}

// newBlueprint reads the embedded object. variant is one more part of the hash.
func newBlueprint(ringBytes uint32, variant string) (*blueprint, error) {
	spec, err := loadKernel()
	if err != nil {
		return nil, fmt.Errorf("read the embedded BPF object: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return nil, fmt.Errorf("identify this process's pid namespace: %w", err)
	}
	if err := spec.Variables[kernelVarAgentPidns].Set(uint32(st.Ino)); err != nil {
		return nil, fmt.Errorf("tell the BPF programs the pid namespace: %w", err)
	}
	spec.Maps[kernelMapRing].MaxEntries = ringBytes
	b := &blueprint{spec: spec}
	for name, at := range map[string]*uint64{kernelVarWanted: &b.wantedAt, kernelVarCounts: &b.countsAt, kernelVarQuiet: &b.quietAt} {
		v := spec.Variables[name]
		if v == nil || v.SectionName != variablesSection {
			return nil, errors.New("the embedded BPF object has no variable " + name)
		}
		*at = uint64(v.Offset)
	}
	b.schema = b.hash(uint32(st.Ino), variant)
	return b, nil
}

const variablesSection = ".bss"

// hash covers the object's bytes, the maps as they are to be made, the constants that are set when it is loaded, and the
// formats of records and ledger.
func (b *blueprint) hash(pidns uint32, variant string) string {
	h := sha256.New()
	part := func(data []byte) {
		_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(data)))) // a hash cannot fail
		_, _ = h.Write(data)
	}
	part(_KernelBytes)
	for _, name := range slices.Sorted(maps.Keys(b.spec.Maps)) {
		m := b.spec.Maps[name]
		part(fmt.Appendf(nil, "%s %d %d %d %d %d", name, m.Type, m.KeySize, m.ValueSize, m.MaxEntries, m.Flags))
	}
	part(fmt.Appendf(nil, "%d %d %d", pidns, recordFormat, ledgerFormat))
	part([]byte(variant))
	return hex.EncodeToString(h.Sum(nil)[:8])
}
