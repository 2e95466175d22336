package recorder

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// onDisk is what the directory really takes.
func onDisk(t testing.TB, dir string) (total int64, files int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			total += info.Size()
			files++
		}
	}
	return total, files
}

func TestTheBoundIsHeldAndTheNewestStays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const bound = 1 << 20
	g := start(t, dir, sized(bound))
	const n = 45_000
	for i := range n {
		g.lane.put(newExec(uint64(i) + 1))
		if i%5000 == 4999 {
			g.taken()
			if total, _ := onDisk(t, dir); total > bound {
				t.Fatalf("%d bytes on disk after %d events", total, i)
			}
		}
	}
	g.stop()
	total, files := onDisk(t, dir)
	if total > bound || total < bound*3/4 || files < segments/2 {
		t.Errorf("%d bytes in %d files", total, files)
	}
	s := g.Stats()
	if s.Events != n || int64(s.Bytes) != total || s.Segments != uint64(files) || s.BytesWritten < 2*bound {
		t.Errorf("%+v, on disk %d bytes in %d files", s, total, files)
	}
	records, skips := history(t, dir, Query{})
	got := seqs(records)
	if len(skips) != 0 || len(got) == 0 || got[0] == 1 {
		t.Fatalf("%d events, skipped %v", len(got), skips)
	}
	for i, seq := range got {
		if want := uint64(n - len(got) + 1 + i); seq != want {
			t.Fatalf("event %d is %d, want %d: not the newest without a gap", i, seq, want)
		}
	}
}

func TestRestartGoesOn(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state", DirName)
	for i := range uint64(3) {
		record(t, dir, asIs, newExec(2*i+1), newExec(2*i+2))
	}
	records, skips := history(t, dir, Query{})
	if d := cmp.Diff([]uint64{1, 2, 3, 4, 5, 6}, seqs(records)); d != "" || len(skips) != 0 {
		t.Errorf("%s, skipped %v", d, skips)
	}
	var types []Type
	runs := map[uint64]bool{}
	for _, r := range records {
		types = append(types, r.Type)
		runs[r.Run] = true
	}
	one := []Type{Start, Event, Event, End}
	if d := cmp.Diff(append(append(append([]Type{}, one...), one...), one...), types); d != "" || len(runs) != 3 {
		t.Errorf("%s, %d runs", d, len(runs))
	}
	if records[0].Version != "1.2.3" || records[0].Boot != testBoot {
		t.Errorf("%+v", records[0])
	}
	for path, want := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, filepath.Join(dir, segmentName(1)): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode() != want {
			t.Errorf("%s has mode %v, %v", path, st.Mode(), err)
		}
	}
}

func TestASmallerBoundCutsWhatIsThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	record(t, dir, sized(4<<20), execs(30_000)...)
	before, _ := onDisk(t, dir)
	record(t, dir, sized(1<<20), newExec(30_001))
	after, _ := onDisk(t, dir)
	if before < 1<<20 || after > 1<<20 {
		t.Errorf("%d bytes, then %d", before, after)
	}
	records, _ := history(t, dir, Query{})
	if got := seqs(records); got[len(got)-1] != 30_001 {
		t.Errorf("the last is %d", got[len(got)-1])
	}
}

func TestARemovedDirectoryIsMadeAgain(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), DirName)
	ring := &ring{dir: dir, limit: 1 << 20, disk: realDisk{}, wall: func() int64 { return 0 }, retire: func(f file) { _ = f.Close() }}
	if err := ring.load(); err != nil {
		t.Fatal(err)
	}
	write := func() {
		t.Helper()
		if err := ring.append(func(marker) []byte { return []byte("a block") }); err != nil {
			t.Fatal(err)
		}
	}
	write()
	if err := ring.check(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := ring.check(); err == nil {
		t.Error("nobody noticed")
	}
	write()
	ring.close()
	if total, files := onDisk(t, dir); files != 1 || total != ring.total {
		t.Errorf("%d bytes in %d files, counted %d", total, files, ring.total)
	}
}

// TestLossesAreTold: what the tap dropped is in the record, at its place and exactly once.
func TestLossesAreTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := newLane(2)
	for i := range uint64(5) {
		l.put(newExec(i + 1)) // 3, 4 and 5 are dropped
	}
	g := start(t, dir, func(r *Recorder) { r.cfg.Tap = l })
	g.eventually("both are taken", func() bool { return len(l.ch) == 0 })
	g.eventually("the loss is counted, though no event followed", func() bool { return g.Stats().LostSlow == 3 })
	l.put(newExec(6))
	g.eventually("it is taken", func() bool { return len(l.ch) == 0 })
	g.stop()
	records, _ := history(t, dir, Query{})
	var got []uint64
	for _, r := range records {
		switch r.Type {
		case Event:
			got = append(got, r.Event.Seq)
		case Loss:
			got = append(got, 1000+r.Lost)
			if r.Cause != CauseSlow {
				t.Errorf("cause %q", r.Cause)
			}
		}
	}
	if d := cmp.Diff([]uint64{1, 2, 1003, 6}, got); d != "" {
		t.Error(d)
	}
	if e := g.entry(); e.Remedy == "" {
		t.Errorf("nobody is told: %+v", e)
	}
}

func TestAGiantIsLostAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	giant := newExec(2)
	giant.Exec.Argv = []string{string(make([]byte, maxRecord+1))}
	s := record(t, dir, asIs, newExec(1), giant, newExec(3))
	records, _ := history(t, dir, Query{})
	if d := cmp.Diff([]uint64{1, 3}, seqs(records)); d != "" || lost(records) != 1 || s.LostOversized != 1 || s.Events != 2 {
		t.Errorf("%s, %+v", d, s)
	}
}
