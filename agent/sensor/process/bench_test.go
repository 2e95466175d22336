package process

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/internal/roottest"
)

// spawner is a process of its own that starts programs: the sensor's memory and garbage collector must not be in its way.
type spawner struct {
	in  io.Writer
	out *bufio.Scanner
}

func newSpawner(b *testing.B) *spawner {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"BAILEY_PROCESS_TEST_HELPER=spawn"}
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return &spawner{in, bufio.NewScanner(out)}
}

// spawn returns the median of the nanoseconds that each of n forks, execs and exits took.
func (s *spawner) spawn(b *testing.B, n int) float64 {
	if _, err := fmt.Fprintln(s.in, n); err != nil {
		b.Fatal(err)
	}
	s.out.Scan()
	each, err := strconv.ParseFloat(s.out.Text(), 64)
	if err != nil {
		b.Fatal(err)
	}
	return each
}

// running returns a sensor that runs until the returned function is called.
func running(b *testing.B, wanted bool) (s *Sensor, stop func()) {
	cfg := quiet(func(*event.Event) {})
	cfg.Wanted = wanted
	s, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	return s, func() {
		cancel()
		if err := errors.Join(<-done, s.Close()); err != nil {
			b.Error(err)
		}
	}
}

// BenchmarkSpawn measures one fork, exec and exit without the sensor, with one that nobody wants, and with one that somebody
// wants: in turn, in small batches, so that what else the machine does falls on all three. It reports the medians over the
// batches of the other two's cost in relation to that of the batch without.
func BenchmarkSpawn(b *testing.B) {
	roottest.Require(b, "loads BPF programs")
	const batch = 100
	var off, unwanted, wanted []float64
	programs := newSpawner(b)
	timed := func() float64 {
		programs.spawn(b, 20) // what attaching stirred up
		return programs.spawn(b, batch)
	}
	for b.Loop() {
		base := timed()
		_, stop := running(b, false)
		rest := timed()
		stop()
		base = (base + timed()) / 2
		_, stop = running(b, true)
		work := timed()
		stop()
		off, unwanted, wanted = append(off, base), append(unwanted, rest/base), append(wanted, work/base)
	}
	b.ReportMetric(0, "ns/op") // batches and attaching: says nothing
	b.ReportMetric(median(off), "off-ns/spawn")
	b.ReportMetric(100*(median(unwanted)-1), "unwanted-%")
	b.ReportMetric(100*(median(wanted)-1), "wanted-%")
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// BenchmarkKernel measures what the BPF programs take, by the kernel's own clock, which costs something itself.
func BenchmarkKernel(b *testing.B) {
	roottest.Require(b, "loads BPF programs")
	programs := newSpawner(b)
	for name, want := range map[string]bool{"unwanted": false, "wanted": true} {
		b.Run(name, func(b *testing.B) {
			s, stop := running(b, want)
			defer stop()
			stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
			if err != nil {
				b.Fatal(err)
			}
			defer stats.Close()
			for b.Loop() {
				programs.spawn(b, 1)
			}
			for name, p := range map[string]*ebpf.Program{"fork": s.kernel.objects.ProcessFork, "exec": s.kernel.objects.ProcessExec, "exit": s.kernel.objects.ProcessExit} {
				if st, err := p.Stats(); err == nil && st.RunCount > 0 {
					b.ReportMetric(float64(st.Runtime.Nanoseconds())/float64(st.RunCount), name+"-ns/run")
				}
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

// BenchmarkLedger measures what it costs, beside BenchmarkTake, that the next reader knows where this one stopped.
func BenchmarkLedger(b *testing.B) {
	l := ownLedger()
	r := &ring{consumer: new(uint64)}
	for b.Loop() {
		behind := r.at() + 64
		l.begin(behind)
		l.done(recordExec, behind)
		r.commit(behind)
	}
}

// BenchmarkLookup measures what the reader of questions pays.
func BenchmarkLookup(b *testing.B) {
	s := &Sensor{cfg: quiet(func(*event.Event) {}), tree: newTree()}
	var err error
	if s.cells, err = mapCells(-1); err != nil {
		b.Fatal(err)
	}
	defer s.cells.close() //nolint:errcheck // memory of the benchmark
	s.wanted.Store(true)
	s.tree.put(proc(1000, 1, "x"), 0, 1)
	b.ReportAllocs()
	for b.Loop() {
		if s.Platform(1000) || s.NeverAsk(1000) || s.Lookup(1000) == nil {
			b.Fatal("wrong")
		}
	}
}
