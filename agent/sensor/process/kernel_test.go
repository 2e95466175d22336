package process

import (
	"errors"
	"log/slog"
	"os"
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

// A closed sensor leaves no program, map or link in the kernel.
func TestCloseLeavesNothingInTheKernel(t *testing.T) {
	roottest.Require(t, "loads BPF programs")
	s, err := New(quiet(func(*event.Event) {}))
	if err != nil {
		t.Fatal(err)
	}
	var programs []ebpf.ProgramID
	var maps []ebpf.MapID
	var links []link.ID
	o := &s.kernel.objects
	for _, p := range []*ebpf.Program{o.ProcessExec, o.ProcessFork, o.ProcessExit, o.ProcessTask} {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		programs = append(programs, id)
	}
	for _, m := range []*ebpf.Map{o.Cells, o.Ring, o.Scratch} {
		info, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		maps = append(maps, id)
	}
	for _, l := range s.kernel.links {
		info, err := l.Info()
		if err != nil {
			t.Fatal(err)
		}
		links = append(links, info.ID)
	}
	if len(links) != 3 {
		t.Errorf("%d links", len(links))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	gone := func() bool { // the kernel frees after a grace period
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
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(10 * time.Second); !gone(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("BPF objects are still there")
		}
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
