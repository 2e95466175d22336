package process

import (
	"bytes"
	"context"
	"os/exec"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/internal/roottest"
)

// BenchmarkSpawn measures one fork, exec and exit, without and with the sensor, in turn in one run.
func BenchmarkSpawn(b *testing.B) {
	spawn := func(b *testing.B) {
		for b.Loop() {
			if err := exec.Command("/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	}
	for range 3 {
		b.Run("off", spawn)
		b.Run("on", func(b *testing.B) {
			roottest.Require(b, "loads BPF programs")
			s, err := New(quiet(func(*event.Event) {}))
			if err != nil {
				b.Fatal(err)
			}
			stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error)
			go func() { done <- s.Run(ctx) }()
			spawn(b)
			b.StopTimer()
			for name, p := range map[string]*ebpf.Program{"fork": s.kernel.objects.ProcessFork, "exec": s.kernel.objects.ProcessExec, "exit": s.kernel.objects.ProcessExit} {
				if st, err := p.Stats(); err == nil && st.RunCount > 0 {
					b.ReportMetric(float64(st.Runtime.Nanoseconds())/float64(st.RunCount), name+"-ns/run")
				}
			}
			if err := stats.Close(); err != nil {
				b.Error(err)
			}
			cancel()
			if err := <-done; err != nil {
				b.Error(err)
			}
			if err := s.Close(); err != nil {
				b.Error(err)
			}
		})
	}
}

// BenchmarkTake measures what one process costs in user mode: the decoding and applying of its three records.
func BenchmarkTake(b *testing.B) {
	var emitted atomic.Int64
	s := &Sensor{cfg: quiet(func(*event.Event) { emitted.Add(1) }), tree: newTree()}
	s.cfg.NeverAsk = func(*event.Process) bool { return false }
	// Where each record has the start time that makes it another process; the parent stays.
	records := []struct {
		raw   []byte
		start int
	}{{bytes.Clone(goodFork), headerSize + whoSize}, {bytes.Clone(goodExec), headerSize}, {bytes.Clone(goodExit), headerSize}}
	var r record
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		for _, one := range records {
			at := one.start
			one.raw[at], one.raw[at+1], one.raw[at+2] = byte(i), byte(i>>8), byte(i>>16)
			s.take(&r, one.raw)
		}
	}
	b.ReportMetric(float64(emitted.Load())/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkLookup measures what the reader of questions pays.
func BenchmarkLookup(b *testing.B) {
	s := &Sensor{cfg: quiet(func(*event.Event) {}), tree: newTree()}
	var err error
	if s.cells, err = mapCells(-1); err != nil {
		b.Fatal(err)
	}
	defer s.cells.close() //nolint:errcheck // memory of the benchmark
	s.tree.put(proc(1000, 1, "x"), 0, 1)
	b.ReportAllocs()
	for b.Loop() {
		if s.Platform(1000) || s.NeverAsk(1000) || s.Lookup(1000) == nil {
			b.Fatal("wrong")
		}
	}
}
