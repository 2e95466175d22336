package journal

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bailey/agent/health"
	"bailey/internal/roottest"

	"golang.org/x/sys/unix"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start runs a journal that was made already.
func start(t *testing.T, j *Journal, registry *health.Registry) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Journal: j, t: t, health: registry, cancel: cancel, done: make(chan struct{})}
	j.cfg.Patience = time.Minute
	go func() {
		defer close(r.done)
		if err := j.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(r.stop)
	return r
}

// smallDisk mounts a tmpfs.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	roottest.Require(t, "mounts a small file system")
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bailey-journal", dir, "tmpfs", 0, options); err != nil {
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

// TestFullDisk: the journal says so and that what to do, loses only what memory cannot hold, says what it lost, and goes on
// by itself.
func TestFullDisk(t *testing.T) {
	disk := smallDisk(t, "size=4m")
	dir := filepath.Join(disk, "journal")
	r := run(t, dir, func(c *Config) { c.MaxBytes, c.SegmentBytes, c.SumUp = 8<<20, 1<<20, 50*time.Millisecond })
	r.commit(KindOperator, map[string]any{"number": 0})
	ballast := filepath.Join(disk, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	// The page that the segment ends in still takes a little.
	kept := 1
	for err = error(nil); err == nil && kept < 1000; kept++ {
		err = r.Commit(KindOperator, map[string]any{"number": kept})
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("on a full disk: %v", err)
	}
	if e := r.entry(Component); e.Status != health.Failed || !strings.Contains(e.Remedy, "make room") {
		t.Errorf("health says %+v", e)
	}
	begin := time.Now()
	for range 2 * maxPending {
		r.Note(KindAgent, map[string]any{})
	}
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("notes waited for the disk: %v", took)
	}
	eventually(t, "what memory cannot hold is counted", func() bool { return r.Stats().Lost > 0 })
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes on", func() bool { return r.entry(Component).Status == health.OK })
	r.commit(KindOperator, map[string]any{"number": kept})
	r.stop()

	verified(t, dir, r.Head().Hash)
	if n := len(lines(t, dir, KindOperator)); n != kept+1 {
		t.Errorf("%d operator lines, want %d: those that waited in memory too", n, kept+1)
	}
	sum := uint64(len(lines(t, dir, KindAgent)))
	for _, l := range lines(t, dir, KindLost) {
		var f lostFields
		if err := l.Decode(&f); err != nil {
			t.Fatal(err)
		}
		for _, c := range f.Counts {
			sum += c.Count
		}
	}
	if sum != 2*maxPending {
		t.Errorf("%d notes are accounted for, want %d", sum, 2*maxPending)
	}
}

// TestNoInodes: the directory cannot even be made.
func TestNoInodes(t *testing.T) {
	disk := smallDisk(t, "size=2m,nr_inodes=2")
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(disk, "journal")
	r := run(t, dir, nil)
	if err := r.Commit(KindOperator, map[string]any{"number": 1}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("without inodes: %v", err)
	}
	if e := r.entry(Component); e.Status != health.Failed {
		t.Errorf("health says %+v", e)
	}
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT, "size=2m,nr_inodes=100"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes on", func() bool { return r.entry(Component).Status == health.OK })
	r.stop()
	verified(t, dir)
	if n := len(lines(t, dir, KindOperator)); n != 1 {
		t.Errorf("%d lines, want the one that waited", n)
	}
}

func TestReadOnlyDisk(t *testing.T) {
	disk := smallDisk(t, "size=2m")
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	r := run(t, filepath.Join(disk, "journal"), nil)
	if err := r.Commit(KindOperator, map[string]any{"number": 1}); !errors.Is(err, unix.EROFS) {
		t.Errorf("on a read-only disk: %v", err)
	}
	if e := r.entry(Component); e.Status != health.Failed || !strings.Contains(e.Remedy, "mount") {
		t.Errorf("health says %+v", e)
	}
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes on", func() bool { return r.entry(Component).Status == health.OK })
	r.stop()
	verified(t, filepath.Join(disk, "journal"))
}

// TestKilledWriters: a writer that is killed at any moment leaves a journal that verifies, holds everything that was said to be
// on the disk, and is gone on with.
func TestKilledWriters(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "journal")
	acknowledged := 0
	for round := range 30 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), writerVariable+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said := -1
		scan := bufio.NewScanner(out)
		// At a moment that differs from round to round, measured in what it did.
		for range 1 + round*7%23 {
			if !scan.Scan() {
				break
			}
			if said, err = strconv.Atoi(scan.Text()); err != nil {
				t.Fatalf("the writer said %q", scan.Text())
			}
		}
		_ = cmd.Process.Kill()
		for scan.Scan() {
			if n, err := strconv.Atoi(scan.Text()); err == nil {
				said = n
			}
		}
		_ = cmd.Wait() // killed
		acknowledged += said + 1
		verified(t, dir)
		if got := lastNumber(t, dir); got < said {
			t.Fatalf("round %d: number %d was said to be on the disk, the last one there is %d", round, said, got)
		}
	}
	if acknowledged < 100 {
		t.Errorf("only %d lines were acknowledged", acknowledged)
	}
	r := run(t, dir, func(c *Config) { c.MaxBytes, c.SegmentBytes = 1<<20, 2*maxLine })
	r.commit(KindOperator, map[string]any{"number": -1})
	r.stop()
	verified(t, dir, r.Head().Hash)
}

// lastNumber is the number of the last line that a writer committed.
func lastNumber(t *testing.T, dir string) int {
	t.Helper()
	all := lines(t, dir, KindOperator)
	if len(all) == 0 {
		return -1
	}
	var f struct {
		Number int `json:"number"`
	}
	if err := json.Unmarshal(all[len(all)-1].Fields, &f); err != nil {
		t.Fatal(err)
	}
	return f.Number
}

// BenchmarkNote is what the caller pays, the line being written meanwhile.
func BenchmarkNote(b *testing.B) {
	j, err := New(Config{Dir: b.TempDir(), Health: health.NewRegistry(), Log: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = j.Run(ctx) }()
	e := deny("/tmp/x")
	b.ReportAllocs()
	for b.Loop() {
		j.Observe(e)
	}
	cancel()
	<-done
}

// BenchmarkCommit is what an operator's request waits for.
func BenchmarkCommit(b *testing.B) {
	j, err := New(Config{Dir: b.TempDir(), Health: health.NewRegistry(), Log: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = j.Run(ctx) }()
	for b.Loop() {
		if err := j.Commit(KindOperator, map[string]any{"method": "ProductGrant"}); err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	<-done
}
