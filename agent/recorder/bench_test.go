package recorder

import (
	"path/filepath"
	"testing"
	"time"

	"bailey/agent/event"
	"bailey/agent/product/link"
	"bailey/internal/boottime"

	"golang.org/x/sys/unix"
)

// typical are the events of one program start with its question, as a machine has them.
func typical() []*event.Event {
	parent := &event.Process{
		Key: event.ProcessKey{PID: 4000, Start: 1_234_567_890_123}, Parent: event.ProcessKey{PID: 1, Start: 1}, Comm: "bash",
		Executable: event.File{Path: "/usr/bin/bash", Dev: 65025, Ino: 131_100, CTime: 1_700_000_000_123_456_789, MTime: 1_600_000_000_000_000_000, Size: 1_265_648, Mode: 0o100755},
		CgroupID:   7777, Cgroup: "/user.slice/user-1000.slice/session-3.scope", MountNamespace: 4_026_531_841,
	}
	child := *parent
	child.Key, child.Parent = event.ProcessKey{PID: 4711, Start: 1_234_999_890_123}, parent.Key
	after := child
	after.Comm, after.Executable.Path, after.Executable.Ino = "ls", "/usr/bin/ls", 131_222
	return []*event.Event{
		{Kind: event.Fork, Process: parent, Fork: &event.ForkDetail{Child: &child}},
		{Kind: event.Verdict, Process: &child, Verdict: &event.VerdictDetail{
			QuestionID: 9, Asked: event.Exec, File: after.Executable, Latency: 61_000, Decision: event.Decision{Allow: true, Reason: event.ByProducts},
			Answers: []event.Answer{{Product: "allowlist", Outcome: event.Answered, Allow: true, Latency: 55_000}},
		}},
		{Kind: event.Exec, Process: &after, Exec: &event.ExecDetail{Argv: []string{"ls", "-l", "/home/someone/project"}, Argc: 3, EnvSize: 2800, CWD: "/home/someone"}},
		{Kind: event.Exit, Process: &after, Exit: &event.ExitDetail{}},
	}
}

// newWriter returns a writer to dir that no goroutine runs.
func newWriter(b testing.TB, dir string) *writer {
	b.Helper()
	r, err := New(Config{Dir: dir, Tap: newLane(1), Encoder: new(link.Codec), Now: boottime.Now, Wall: time.Now, Boot: testBoot})
	if err != nil {
		b.Fatal(err)
	}
	block, err := newBlock()
	if err != nil {
		b.Fatal(err)
	}
	s := startSyncer()
	b.Cleanup(s.stop)
	return &writer{Recorder: r, block: block, syncer: s, ring: &ring{
		dir: dir, limit: r.cfg.Size, disk: r.disk, boot: r.boot, retire: s.retire, wall: func() int64 { return time.Now().UnixNano() },
	}}
}

func cpu() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRecord is what one event costs from the tap to the page cache; the processor time is the whole process's.
func BenchmarkRecord(b *testing.B) {
	w := newWriter(b, filepath.Join(b.TempDir(), DirName))
	events := typical()
	n := uint64(0)
	before := cpu()
	for b.Loop() {
		e := *events[n%uint64(len(events))]
		n++
		e.Seq, e.Time = n, 1e15+n*250_000
		w.take(&e, 0)
	}
	w.finish()
	s := w.Stats()
	b.ReportMetric(float64(cpu()-before)/float64(n), "cpu-ns/record")
	b.ReportMetric(float64(s.BytesWritten)/float64(n), "disk-B/record")
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
	if s.Events != n {
		b.Fatalf("%d events, %+v", n, s)
	}
}

// BenchmarkRead is what one event costs a reader.
func BenchmarkRead(b *testing.B) {
	dir := filepath.Join(b.TempDir(), DirName)
	w := newWriter(b, dir)
	events := typical()
	const n = 100_000
	for i := range uint64(n) {
		e := *events[i%uint64(len(events))]
		e.Seq, e.Time = i, 1e15+i*250_000
		w.take(&e, 0)
	}
	w.finish()
	var r *Reader
	for b.Loop() {
		for {
			if r == nil {
				var err error
				if r, err = Open(ReaderConfig{Dir: dir, Decoder: new(link.Codec)}); err != nil {
					b.Fatal(err)
				}
			}
			if _, err := r.Next(); err == nil {
				break
			}
			r.Close()
			r = nil
		}
	}
	if r != nil {
		r.Close()
	}
}
