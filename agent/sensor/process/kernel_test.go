package process

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/internal/roottest"
)

func quiet(emit func(*event.Event)) Config {
	return Config{Wanted: true, Emit: emit, Log: slog.New(slog.DiscardHandler), Health: health.NewRegistry()}
}

// A closed sensor leaves no program, map or link in the kernel, whether they were its own, pinned, or another's before.
func TestCloseLeavesNothingInTheKernel(t *testing.T) {
	roottest.Require(t, "loads BPF programs and mounts a bpffs")
	dir := t.TempDir()
	if err := unix.Mount("bailey-test", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	for _, name := range []string{"alone", "pinned", "adopted"} {
		t.Run(name, func(t *testing.T) {
			cfg := quiet(func(*event.Event) {})
			if name != "alone" {
				cfg.Pins = filepath.Join(dir, "process")
			}
			s, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if name == "adopted" {
				s.Leave()
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if s, err = New(cfg); err != nil || !s.Restored().Adopted {
					t.Fatalf("adopted: %v", err)
				}
			}
			gone := remembered(t, s.kernel)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(dir, "process")); !os.IsNotExist(err) {
				t.Errorf("the directory of pins: %v", err)
			}
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for late := time.After(10 * time.Second); !gone(); {
				select {
				case <-tick.C:
				case <-late:
					t.Fatal("BPF objects are still there")
				}
			}
		})
	}
}

// remembered returns a function that says whether all objects of k are gone from the kernel, which frees after a grace period.
func remembered(t *testing.T, k *kernel) func() bool {
	t.Helper()
	var programs []ebpf.ProgramID
	var maps []ebpf.MapID
	var links []link.ID
	o := &k.objects
	for _, p := range []*ebpf.Program{o.ProcessExec, o.ProcessFork, o.ProcessExit, o.ProcessTask} {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		programs = append(programs, id)
		used, _ := info.MapIDs()
		maps = append(maps, used...)
	}
	if k.ledger.table != nil {
		info, err := k.ledger.table.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		maps = append(maps, id)
	}
	for _, l := range k.links {
		info, err := l.Info()
		if err != nil {
			t.Fatal(err)
		}
		links = append(links, info.ID)
	}
	if len(links) != 3 || len(maps) < 5 {
		t.Errorf("%d links, %d maps", len(links), len(maps))
	}
	return func() bool {
		for _, id := range programs {
			if p, err := ebpf.NewProgramFromID(id); err == nil {
				return p.Close() != nil
			}
		}
		for _, id := range maps {
			if m, err := ebpf.NewMapFromID(id); err == nil {
				return m.Close() != nil
			}
		}
		for _, id := range links {
			if l, err := link.NewFromID(id); err == nil {
				return l.Close() != nil
			}
		}
		return true
	}
}

func TestTakeCountsWhatItCannotRead(t *testing.T) {
	t.Parallel()
	var emitted int
	s := &Sensor{cfg: quiet(func(*event.Event) { emitted++ }), tree: newTree()}
	s.cfg.NeverAsk = func(*event.Process) bool { return false }
	var r record
	for _, raw := range [][]byte{nil, goodExec[:100], rawRecord(200, nil), goodFork, goodExec, goodExit, goodExit} {
		s.take(&r, raw)
	}
	c, err := s.Counters()
	if err != nil {
		t.Fatal(err)
	}
	want := Counters{EmittedExecs: 1, EmittedForks: 1, EmittedExits: 1, DuplicateExits: 1, Malformed: 2, UnknownKinds: 1, UnknownProcesses: 1}
	if c != want || emitted != 3 {
		t.Errorf("%d emitted\n got %+v\nwant %+v", emitted, c, want)
	}
}

func TestRemedyFitsTheError(t *testing.T) {
	t.Parallel()
	for _, err := range []error{unix.EPERM, ebpf.ErrNotSupported, os.ErrNotExist, errors.New("other")} {
		if remedy(err) == "" {
			t.Errorf("%v has no remedy", err)
		}
	}
	if remedy(unix.EPERM) == remedy(ebpf.ErrNotSupported) {
		t.Error("a missing privilege and a missing feature have one remedy")
	}
}
