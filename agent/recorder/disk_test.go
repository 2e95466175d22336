package recorder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"bailey/agent/health"
	"bailey/internal/roottest"

	"golang.org/x/sys/unix"
)

// smallDisk mounts a tmpfs of the test's own.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	roottest.Require(t, "mounts a small filesystem")
	dir := t.TempDir()
	if err := unix.Mount("bailey-recorder", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir
}

// fill takes all the space that is left.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4096)
	for {
		if _, err := f.Write(page); errors.Is(err, unix.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// checkWhole: every event that was put is read back, or told as lost.
func checkWhole(t *testing.T, dir string, put uint64, s Stats) {
	t.Helper()
	records, skips := history(t, dir, Query{})
	got := seqs(records)
	if uint64(len(got))+lost(records) != put || s.Events+s.LostDisk != put || uint64(len(got)) != s.Events || len(skips) != 0 {
		t.Errorf("%d events and %d losses of %d; %+v; skipped %v", len(got), lost(records), put, s, skips)
	}
	for i := 1; i < len(got); i++ {
		if got[i] <= got[i-1] {
			t.Fatalf("event %d after %d", got[i], got[i-1])
		}
	}
}

func (g *rig) degraded(words string) {
	g.t.Helper()
	g.eventually("degraded: "+words, func() bool {
		e := g.entry()
		return e.Status == health.Degraded && strings.Contains(e.Summary, words) && e.Remedy != ""
	})
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	root := smallDisk(t, "size=3m")
	fill(t, filepath.Join(root, "junk"))
	dir := filepath.Join(root, DirName)
	g := start(t, dir)
	const n = 3000
	for i := range n {
		g.lane.put(newExec(uint64(i) + 1))
	}
	g.degraded("nearly full")
	if _, files := onDisk(t, dir); files != 0 {
		t.Error("the last of the space was taken")
	}
	if err := os.Remove(filepath.Join(root, "junk")); err != nil {
		t.Fatal(err)
	}
	g.eventually("recorded again", func() bool { return g.Stats().Events > 0 })
	g.lane.put(newExec(n + 1))
	g.taken()
	g.stop()
	s := g.Stats()
	if s.LostDisk == 0 || s.LostDisk > n-100 {
		t.Errorf("%d of %d events were lost to the full disk; the first ones can wait in memory", s.LostDisk, n)
	}
	checkWhole(t, dir, n+1, s)
}

// TestAFillingDisk: somebody else takes the space while the recorder runs. It goes on within what it has.
func TestAFillingDisk(t *testing.T) {
	t.Parallel()
	root := smallDisk(t, "size=4m")
	dir := filepath.Join(root, DirName)
	g := start(t, dir, sized(2<<20))
	seq := uint64(0)
	send := func(n int) {
		for range n {
			seq++
			g.lane.put(newExec(seq))
		}
		g.taken()
	}
	send(20_000)
	before, _ := onDisk(t, dir)
	fill(t, filepath.Join(root, "junk"))
	for range 10 {
		send(5_000)
		if now, _ := onDisk(t, dir); now > before+int64(fullBlock)+int64(g.Stats().BytesWritten/max(1, g.Stats().Blocks)) {
			t.Errorf("it took %d bytes of a full disk, had %d", now, before)
		}
	}
	g.stop()
	s := g.Stats()
	records, skips := history(t, dir, Query{})
	got := seqs(records)
	if len(got) == 0 || got[len(got)-1] != seq || len(skips) != 0 || s.LostDisk != 0 {
		t.Errorf("the newest of %d events are not there: %d events, %+v, skipped %v", seq, len(got), s, skips)
	}
}

// liar says that there is space where there is none, so that the kernel has to refuse.
type liar struct{ disk }

func (liar) Free(string) (free, all uint64, err error) { return 1 << 40, 1 << 40, nil }

func TestTheKernelSaysFull(t *testing.T) {
	t.Parallel()
	root := smallDisk(t, "size=1m")
	dir := filepath.Join(root, DirName)
	g := start(t, dir, func(r *Recorder) { r.disk = liar{r.disk}; r.cfg.Size = 4 << 20 })
	const n = 30_000
	for i := range n {
		g.lane.put(newExec(uint64(i) + 1))
	}
	g.taken()
	g.stop()
	s := g.Stats()
	records, skips := history(t, dir, Query{})
	got := seqs(records)
	if len(got) == 0 || got[len(got)-1] != n || len(skips) != 0 || s.LostDisk != 0 {
		t.Errorf("%d events, %+v, skipped %v: the ring should have gone on by removing its oldest part", len(got), s, skips)
	}
}

func TestNoInodeIsLeft(t *testing.T) {
	t.Parallel()
	root := smallDisk(t, "size=16m,nr_inodes=8")
	var junk []string
	for i := 0; ; i++ {
		path := filepath.Join(root, fmt.Sprint("junk", i))
		if err := os.WriteFile(path, nil, 0o600); errors.Is(err, unix.ENOSPC) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		junk = append(junk, path)
	}
	dir := filepath.Join(root, DirName)
	g := start(t, dir, sized(1<<20))
	g.lane.put(newExec(1))
	g.degraded("no inode is left")
	for _, path := range junk[:3] { // for the directory and two segments
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	g.eventually("recorded", func() bool { return g.Stats().Events == 1 })
	const n = 20_000 // more than two segments hold
	for i := range n {
		g.lane.put(newExec(uint64(i) + 2))
	}
	g.taken()
	g.stop()
	records, skips := history(t, dir, Query{})
	got := seqs(records)
	if s := g.Stats(); s.LostDisk != 0 || len(got) == 0 || got[len(got)-1] != n+1 || len(skips) != 0 {
		t.Errorf("%d events, %+v, skipped %v", len(got), s, skips)
	}
}

func TestReadOnlyState(t *testing.T) {
	t.Parallel()
	root := smallDisk(t, "size=16m")
	dir := filepath.Join(root, DirName)
	record(t, dir, asIs, newExec(1))
	if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	g := start(t, dir)
	g.lane.put(newExec(2))
	g.degraded("read-only")
	records, _ := history(t, dir, Query{})
	if len(seqs(records)) != 1 {
		t.Error("what is there cannot be read")
	}
	if err := unix.Mount("", root, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	g.eventually("recorded", func() bool { return g.Stats().Events == 1 })
	g.stop()
	checkWhole(t, dir, 2, Stats{Events: 2})
}

// brokenDisk fails as it is told.
type brokenDisk struct {
	disk
	mu    sync.Mutex
	err   error
	after int // bytes that are still written of a block that fails
	sync  error
}

func (d *brokenDisk) set(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *brokenDisk) Create(path string) (file, error) {
	f, err := d.disk.Create(path)
	return &brokenFile{f, d}, err
}

type brokenFile struct {
	file
	disk *brokenDisk
}

func (f *brokenFile) Write(b []byte) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.err == nil {
		return f.file.Write(b)
	}
	n, err := f.file.Write(b[:min(f.disk.after, len(b))])
	return n, errors.Join(f.disk.err, err)
}

func (f *brokenFile) Sync() error { return errors.Join(f.disk.sync, f.file.Sync()) }

func TestDiskErrors(t *testing.T) {
	t.Parallel()
	for _, after := range []int{0, 7, blockSize + 20} {
		t.Run(fmt.Sprintf("after_%d_bytes", after), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			d := &brokenDisk{disk: realDisk{}, after: after}
			g := start(t, dir, func(r *Recorder) { r.disk = d })
			g.lane.put(newExec(1))
			g.eventually("written", func() bool { return g.Stats().Events == 1 })
			d.set(unix.EIO)
			for i := range 4000 {
				g.lane.put(newExec(uint64(i) + 2))
			}
			g.degraded("has errors")
			g.eventually("the block in memory is full", func() bool { return g.Stats().LostSlow == 0 && len(g.lane.ch) == 0 })
			d.set(nil)
			g.eventually("written again", func() bool { return g.Stats().Events > 1 })
			g.stop()
			s := g.Stats()
			if s.LostDisk == 0 || s.Errors == 0 {
				t.Errorf("%+v", s)
			}
			checkWhole(t, dir, 4001, s)
		})
	}
}

func TestADiskThatCannotSyncIsNamed(t *testing.T) {
	t.Parallel()
	d := &brokenDisk{disk: realDisk{}, sync: unix.EIO}
	s := startSyncer()
	f, err := d.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	if !s.sync(f) {
		t.Fatal("no room for the first job")
	}
	s.retire(f)
	s.stop()
	if err := s.fault(); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v", err)
	}
	if err := s.fault(); err != nil {
		t.Errorf("told twice: %v", err)
	}
}

// stuckDisk does not answer.
type stuckDisk struct {
	disk
	release chan struct{}
}

func (d *stuckDisk) Free(dir string) (free, all uint64, err error) {
	<-d.release
	return d.disk.Free(dir)
}

func TestADiskThatDoesNotAnswerHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	d := &stuckDisk{disk: realDisk{}, release: make(chan struct{})}
	g := start(t, t.TempDir(), func(r *Recorder) { r.disk = d })
	began := time.Now()
	g.stop()
	if took := time.Since(began); took < endTakes/2 || took > endTakes+20*time.Second {
		t.Errorf("the end took %v", took)
	}
	close(d.release)
	<-g.ended // or it writes into what the test's end removes
}

func TestConditionReturnsWhenItIsCalm(t *testing.T) {
	t.Parallel()
	reg := health.NewRegistry()
	changes := 0
	reg.Watch(func(health.Entry) { changes++ })
	g := &rig{t: t, health: reg}
	r, err := New(Config{Dir: "/d", Tap: newLane(1), Encoder: nothing{}, Now: func() uint64 { return 0 }, Wall: time.Now, Health: reg})
	if err != nil {
		t.Fatal(err)
	}
	c := &r.state
	at := uint64(1e9)
	for range 100 { // a disk that fails every other time
		c.failed(unix.EIO, at)
		c.tell(at)
		c.wrote(false)
		c.tell(at)
		at += 1e9
	}
	if g.entry().Status != health.Degraded || changes != 1 {
		t.Errorf("%d changes, %+v", changes, g.entry())
	}
	c.tell(at + uint64(calm))
	if g.entry().Status != health.OK || changes != 2 {
		t.Errorf("%d changes, %+v", changes, g.entry())
	}
}
