package critical

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// keptName is the set's name with the keeper.
const keptName = "critical"

// maxKept bounds what is read of an earlier agent's set, in bytes.
const maxKept = 64 << 20

// legacy is a snapshot as one agent leaves it to the next.
type legacy struct {
	Files    []legacyFile
	Paths    map[string]uint64
	Trees    []legacyTree
	Packages int
	Took     time.Duration
	Computed time.Time
}

type legacyFile struct {
	Dev, Ino uint64
	CTime    int64
}

type legacyTree struct {
	Prefix string
	Dev    uint64
}

// bequeath leaves the set to the next agent. Without it that one computes its own first: nothing is worse than a start.
func (s *Set) bequeath(now *snapshot) {
	if s.cfg.Keeper == nil {
		return
	}
	if err := s.leave(now); err != nil {
		s.cfg.Log.Warn("the critical set is not left to the next agent", "err", err)
	}
}

func (s *Set) leave(now *snapshot) error {
	l := legacy{Paths: now.paths, Packages: now.stats.Packages, Took: now.stats.Took, Computed: now.stats.Computed}
	for id, ctime := range now.files {
		l.Files = append(l.Files, legacyFile{id.dev, id.ino, ctime})
	}
	for _, t := range now.trees {
		l.Trees = append(l.Trees, legacyTree{t.prefix, t.dev})
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(l); err != nil {
		return fmt.Errorf("encode the critical set: %w", err)
	}
	fd, err := unix.MemfdCreate("bailey-critical", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("store the critical set: %w", err)
	}
	f := os.NewFile(uintptr(fd), "critical set")
	defer func() { _ = f.Close() }() // the keeper has its own
	if _, err := f.Write(b.Bytes()); err != nil {
		return fmt.Errorf("store the critical set: %w", err)
	}
	return s.cfg.Keeper.Keep(keptName, int(f.Fd()))
}

// inherit returns the set of an earlier agent of this boot, nil when there is none that can be read.
func (s *Set) inherit() *snapshot {
	if s.cfg.Keeper == nil {
		return nil
	}
	fd, ok := s.cfg.Keeper.Take(keptName)
	if !ok {
		return nil
	}
	f := os.NewFile(uintptr(fd), "critical set")
	defer func() { _ = f.Close() }() // only read
	now, err := decode(io.NewSectionReader(f, 0, maxKept))
	if err != nil {
		s.cfg.Log.Warn("the critical set of the agent before cannot be used", "err", err)
		return nil
	}
	return now
}

func decode(r io.Reader) (*snapshot, error) {
	var l legacy
	if err := gob.NewDecoder(r).Decode(&l); err != nil {
		return nil, fmt.Errorf("decode the critical set: %w", err)
	}
	now := &snapshot{files: make(map[identity]int64, len(l.Files)), paths: l.Paths}
	for _, f := range l.Files {
		now.files[identity{f.Dev, f.Ino}] = f.CTime
	}
	for _, t := range l.Trees {
		now.trees = append(now.trees, tree{t.Prefix, t.Dev})
	}
	now.stats = Stats{Files: len(now.files), Trees: len(now.trees), Packages: l.Packages, Took: l.Took, Computed: l.Computed}
	return now, nil
}
