package rules

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
)

// noteSpace is the size of struct note in state.h.
const noteSpace = 2048

// noted is what is kept of a rule in the kernel beside what the programs read: all that an agent needs to go on with it, whatever its
// version. Fields are added and never changed.
type noted struct {
	Rule    Rule   `json:"rule"`
	Number  uint32 `json:"number"` // the product's
	Serial  uint32 `json:"serial"`
	Since   uint64 `json:"since"` // nanoseconds since boot
	Until   uint64 `json:"until"`
	Hits    uint64 `json:"hits,omitempty"` // before it was written
	File    kept   `json:"file,omitzero"`
	Program kept   `json:"program,omitzero"`
	Cgroup  uint64 `json:"cgroup,omitempty"`
	Level   uint32 `json:"level,omitempty"`
}

// kept is a learnedFile in a note.
type kept struct {
	Ino        uint64 `json:"ino"`
	Dev        uint32 `json:"dev"`
	Generation uint32 `json:"generation"`
}

func keep(l learnedFile) kept { return kept{l.ino, l.dev, l.generation} }

func (k kept) learned() learnedFile { return learnedFile{k.Ino, k.Dev, k.Generation} }

// note writes the entry as struct note.
func (e *entry) note() ([]byte, error) {
	text, err := json.Marshal(noted{
		Rule: e.rule, Number: e.number, Serial: e.serial, Since: e.since, Until: e.until, Hits: e.earlier, File: keep(e.target.file),
		Program: keep(e.target.executable), Cgroup: e.target.cgroup, Level: e.target.level,
	})
	if err != nil {
		return nil, fmt.Errorf("note a rule: %w", err)
	}
	if len(text) > noteSpace-4 {
		return nil, invalid("its paths are too long: %d bytes in all, at most %d", len(text), noteSpace-4)
	}
	b := make([]byte, noteSpace)
	binary.NativeEndian.PutUint32(b, uint32(len(text)))
	copy(b[4:], text)
	return b, nil
}

// entry makes an entry of a note.
func (n *noted) entry(slot uint32) *entry {
	return &entry{
		slot: slot, rule: n.Rule, number: n.Number, serial: n.Serial, since: n.Since, until: n.Until, earlier: n.Hits,
		target: target{file: n.File.learned(), executable: n.Program.learned(), cgroup: n.Cgroup, level: n.Level},
	}
}

// readNote reads what note wrote.
func readNote(b []byte) (noted, error) {
	var n noted
	if len(b) < 4 {
		return n, fmt.Errorf("read a rule's note: %d bytes", len(b))
	}
	length := binary.NativeEndian.Uint32(b)
	if int64(length) > int64(len(b)-4) {
		return n, fmt.Errorf("read a rule's note: %d of %d bytes", length, len(b)-4)
	}
	if err := json.Unmarshal(b[4:4+length], &n); err != nil {
		return n, fmt.Errorf("read a rule's note: %w", err)
	}
	return n, nil
}

// readNotes reads all notes. One that cannot be read is left out: its rule is of no known product.
func readNotes(m *ebpf.Map) (map[uint32]noted, error) {
	out := map[uint32]noted{}
	var slot uint32
	var b []byte
	it := m.Iterate()
	for it.Next(&slot, &b) {
		if n, err := readNote(b); err == nil {
			out[slot] = n
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read the rules' notes: %w", err)
	}
	return out, nil
}

// sortedSlots returns the slots in the order of installation.
func sortedSlots(notes map[uint32]noted) []uint32 {
	return slices.SortedFunc(maps.Keys(notes), func(a, b uint32) int { return int(notes[a].Serial) - int(notes[b].Serial) })
}
