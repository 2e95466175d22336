package process_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/sensor/process"
	"bailey/internal/roottest"
)

const needsPins = needs + " and mounts a bpffs"

// left runs a sensor that somebody wants, gives it to use, and leaves what it pinned.
func left(t testing.TB, cfg process.Config, use func(w *watch)) {
	t.Helper()
	w := &watch{health: health.NewRegistry(), wake: make(chan struct{}, 1)}
	w.open(t, cfg)
	stop := w.runUntil(t)
	w.SetWanted(true)
	if use != nil {
		use(w)
	}
	w.Leave()
	stop()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// generations returns the names of what is pinned.
func generations(t testing.TB, pins string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(pins, "process-*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func kinds(w *watch, pid int) (out []event.Kind) {
	for _, e := range w.all() {
		if e.Kind == event.Fork && e.Fork.Child.Key.PID == uint32(pid) || e.Kind != event.Fork && e.Process.Key.PID == uint32(pid) {
			out = append(out, e.Kind)
		}
	}
	return out
}

// What happened while nobody read is emitted in order, and the tree is right: of processes from before, of those that came
// and went, and of those that are still there.
func TestNextSensorGoesOn(t *testing.T) {
	roottest.Require(t, needsPins)
	pins := scratchBPFFS(t)
	cfg := process.Config{Pins: pins}
	before := sleepers(t, 2)
	left(t, cfg, nil)

	end(before[1:])
	gone := run(t, exec.Command("/bin/true", "in_between"))
	living := sleepers(t, 1)[0]
	begin := time.Now()
	w := attach(t, cfg)
	made := time.Since(begin)
	if r := w.Restored(); !r.Adopted || !r.Sending || r.Backlog < 3+2+1 || r.InDoubt+r.LostInKernel+r.LostInReader+r.Unreadable != 0 || r.Replaced != 0 {
		t.Errorf("restored %+v", r)
	}
	if len(w.all()) != 0 {
		t.Error("New emitted something")
	}
	w.run(t)
	if w.Lookup(uint32(living.Process.Pid)) != nil || len(w.all()) != 0 {
		t.Error("what was sent is dealt with before it is wanted")
	}
	begin = time.Now()
	w.SetWanted(true)
	t.Logf("made in %v, settled in %v with %d events", made, time.Since(begin), len(w.all()))

	for pid, want := range map[int][]event.Kind{
		gone: {event.Fork, event.Exec, event.Exit}, living.Process.Pid: {event.Fork, event.Exec}, before[1].Process.Pid: {event.Exit},
	} {
		if got := kinds(w, pid); !slices.Equal(got, want) {
			t.Errorf("%d had %v, want %v", pid, got, want)
		}
	}
	isProc(t, w, []*exec.Cmd{before[0], living}, []*exec.Cmd{before[1]})
	w.rewind()
	if e := w.exec(t, gone); len(e.Exec.Argv) != 2 || e.Exec.Argv[1] != "in_between" || e.Process.Executable != identity(t, "/bin/true") {
		t.Errorf("the program in between is %+v %+v", e.Process, e.Exec)
	}
	w.rewind()
	if e := w.fork(t, living.Process.Pid); e.Process.Key.PID != uint32(os.Getpid()) || e.Process.Executable != identity(t, "/proc/self/exe") {
		t.Errorf("forked by %+v", e.Process)
	}
	after := run(t, exec.Command("/bin/true"))
	w.exit(t, after)
	agree(t, w)
	once(t, w.all())
	noGhosts(t, w)
}

// A process that executed while nobody read ran something unknown before: that is what is said of it until then.
func TestExecInBetweenHasAnUnknownPast(t *testing.T) {
	roottest.Require(t, needsPins)
	cfg := process.Config{Pins: scratchBPFFS(t)}
	shell := exec.Command("/bin/sh", "-c", "read a; /bin/true; exec "+sleeper(t))
	in, out := begin(t, shell)
	defer end([]*exec.Cmd{shell})
	left(t, cfg, nil)
	_, _ = fmt.Fprintln(in)
	_, _ = out.Read(make([]byte, 16)) // the last program runs

	w := attach(t, cfg)
	w.run(t)
	w.SetWanted(true)
	fork := w.until(t, "the shell's fork", func(e *event.Event) bool {
		return e.Kind == event.Fork && e.Process.Key.PID == uint32(shell.Process.Pid)
	})
	if fork.Process.Executable != (event.File{}) {
		t.Errorf("the program that forked is said to be %+v, which it became later", fork.Process.Executable)
	}
	w.rewind()
	if e := w.exec(t, shell.Process.Pid); e.Exec.PreviousExe != "" {
		t.Errorf("before its first exec it is said to have been %s", e.Exec.PreviousExe)
	}
	if p := w.Lookup(uint32(shell.Process.Pid)); p == nil || p.Executable != identity(t, "/proc/self/exe") {
		t.Errorf("now it is %+v", p)
	}
}

// SetWanted(false) first: what was sent is emitted, and the programs rest.
func TestNextSensorThatNobodyWants(t *testing.T) {
	roottest.Require(t, needsPins)
	cfg := process.Config{Pins: scratchBPFFS(t)}
	left(t, cfg, nil)
	pid := run(t, exec.Command("/bin/true"))
	w := attach(t, cfg)
	w.SetWanted(false) // before Run
	w.run(t)
	w.exit(t, pid)
	quiet := func() bool {
		before := w.counters(t)
		run(t, exec.Command("/bin/true"))
		after := w.counters(t)
		return before.Execs == after.Execs && after.Unwanted > before.Unwanted
	}
	w.wait(t, "the rest", quiet)
	w.SetWanted(true)
	after := run(t, exec.Command("/bin/true"))
	w.exit(t, after)
	agree(t, w)
}

// The ring is too small for what happens while nobody reads: what is missing is counted to the event.
func TestOverflowWhileNobodyReadsIsCounted(t *testing.T) {
	roottest.Require(t, needsPins)
	cfg := process.Config{Pins: scratchBPFFS(t), RingBytes: 64 << 10}
	left(t, cfg, nil)
	const programs = 200
	pids := make(map[uint32]bool)
	for range programs {
		pids[uint32(run(t, exec.Command("/bin/true")))] = true
	}
	w := attach(t, cfg)
	found := w.Restored()
	if found.LostInKernel == 0 || found.Backlog == 0 {
		t.Fatalf("restored %+v", found)
	}
	w.run(t)
	w.SetWanted(true)
	// All that the kernel counted was emitted or counted as lost: agree, but for what was lost.
	var c process.Counters
	w.wait(t, "emitted and lost to be all", func() bool {
		c = w.counters(t)
		return c.EmittedExecs+c.LostExecs == c.Execs && c.EmittedForks+c.ForksFromOutside+c.LostForks == c.Forks &&
			c.EmittedExits+c.DuplicateExits+c.LostExits == c.Exits
	})
	seen := uint64(0)
	for _, e := range w.all() {
		if e.Kind == event.Exec && pids[e.Process.Key.PID] && e.Process.Executable.Path == identity(t, "/bin/true").Path {
			seen++
		}
	}
	if lost := c.LostExecs; seen+lost < programs || c.LostExecs+c.LostForks+c.LostExits < found.LostInKernel {
		t.Errorf("%d of %d execs were seen, %d lost: %+v, restored %+v", seen, programs, lost, c, found)
	}
	w.wait(t, "the loss to be said and the tree repaired", func() bool {
		for _, e := range w.health.List() {
			if e.Component == process.Component && strings.Contains(e.Summary, "lost") {
				return w.counters(t).Rescans > 0
			}
		}
		return false
	})
	t.Logf("restored %+v; then %+v", found, c)
}

// What somebody else takes out of the pinned ring is counted.
func TestForeignReaderIsNoticed(t *testing.T) {
	roottest.Require(t, needsPins)
	cfg := process.Config{Pins: scratchBPFFS(t)}
	left(t, cfg, nil)
	run(t, exec.Command("/bin/true"))
	ring, err := ebpf.LoadPinnedMap(filepath.Join(generations(t, cfg.Pins)[0], "ring"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close() //nolint:errcheck // the test's
	thief, err := ringbuf.NewReader(ring)
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close() //nolint:errcheck // the test's
	if err := thief.Flush(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := thief.Read(); err != nil {
			t.Fatal(err)
		}
	}
	w := attach(t, cfg)
	if r := w.Restored(); r.LostInReader != 2 || r.InDoubt != 0 {
		t.Errorf("restored %+v, want 2 records taken", r)
	}
	w.run(t)
	w.SetWanted(true)
	w.exit(t, run(t, exec.Command("/bin/true")))
}

// Under load, programs of another version replace those that run, again and again, while one sensor hands over to the next:
// prepared beside it, or after it. Each event is emitted once.
func TestOtherProgramsReplaceThoseThatRun(t *testing.T) {
	roottest.Require(t, needsPins)
	pins := scratchBPFFS(t)
	load := (*tagged)(nil)
	var all [][]said
	var last *watch
	var stop func()
	sensors := 10
	if testing.Short() {
		sensors = 4
	}
	for i := range sensors {
		cfg := process.WithVariant(process.Config{Pins: pins}, []string{"a", "b", "b"}[i%3])
		next := &watch{health: health.NewRegistry(), wake: make(chan struct{}, 1)}
		next.open(t, cfg)
		stopNext := next.runUntil(t) // waits for the other to leave
		if last != nil {
			if i%2 == 0 { // the new one is wanted already
				go next.SetWanted(true)
				pause(10 * time.Millisecond)
			}
			if len(next.all()) != 0 {
				t.Error("two sensors read at a time")
			}
			last.Leave()
		}
		next.SetWanted(true)
		if load == nil {
			load = startTagged(2)
		}
		if last != nil {
			stop()
			if err := last.Close(); err != nil {
				t.Error(err)
			}
			all = append(all, heard(last))
		}
		last, stop = next, stopNext
		pause(100 * time.Millisecond)
	}
	n := load.stop()
	last.exit(t, run(t, exec.Command("/bin/true")))
	agree(t, last)
	all = append(all, heard(last))
	exactlyOnce(t, all, n)
	noGhosts(t, last)
	last.wait(t, "the replaced programs to be removed", func() bool { return len(generations(t, pins)) == 1 })
	stop()
	if err := last.Close(); err != nil {
		t.Error(err)
	}
}

// heard returns what a sensor emitted, after what it found.
func heard(w *watch) []said {
	found := w.Restored()
	out := []said{{Found: &found}}
	for _, e := range w.all() {
		out = append(out, saidOf(e))
	}
	return out
}

func TestPlatformOutlivesTheSensor(t *testing.T) {
	roottest.Require(t, needsPins)
	pins := scratchBPFFS(t)
	me := uint32(os.Getpid())
	var child *exec.Cmd
	for i, variant := range []string{"a", "a", "b"} { // made, adopted, replaced
		cfg := process.WithVariant(process.Config{Pins: pins}, variant)
		left(t, cfg, func(w *watch) {
			if i == 0 {
				if err := w.MarkPlatform(me); err != nil {
					t.Error(err)
				}
				child = sleepers(t, 1)[0]
			}
			if !w.Platform(me) || !w.Platform(uint32(child.Process.Pid)) || w.Platform(1) {
				t.Errorf("round %d: self %v, child %v, init %v", i, w.Platform(me), w.Platform(uint32(child.Process.Pid)), w.Platform(1))
			}
			later := sleepers(t, 1)[0]
			if !w.Platform(uint32(later.Process.Pid)) {
				t.Errorf("round %d: a new child does not belong to the platform", i)
			}
		})
	}
	w := attach(t, process.WithVariant(process.Config{Pins: pins}, "b"))
	if err := w.MarkPlatform(uint32(child.Process.Pid)); err != nil || !w.Platform(uint32(child.Process.Pid)) {
		t.Errorf("marked in adopted cells: %v", err)
	}
}

// BenchmarkAdopt measures how long it takes from a sensor's New until it has dealt with what happened while nobody read.
func BenchmarkAdopt(b *testing.B) {
	roottest.Require(b, needsPins)
	for _, programs := range []int{0, 1000} {
		b.Run(fmt.Sprintf("programs_%d", programs), func(b *testing.B) {
			cfg := process.Config{Pins: scratchBPFFS(b)}
			var made, settled []time.Duration
			events := 0
			left(b, cfg, nil)
			for b.Loop() {
				for range programs {
					run(b, exec.Command("/bin/true"))
				}
				w := &watch{health: health.NewRegistry(), wake: make(chan struct{}, 1)}
				begin := time.Now()
				w.open(b, cfg)
				opened := time.Now()
				stop := w.runUntil(b)
				w.SetWanted(true)
				made, settled = append(made, opened.Sub(begin)), append(settled, time.Since(opened))
				events += len(w.all())
				w.Leave()
				stop()
				if err := w.Close(); err != nil {
					b.Error(err)
				}
			}
			b.ReportMetric(0, "ns/op") // with the programs
			b.ReportMetric(float64(events)/float64(len(made)), "events")
			for name, all := range map[string][]time.Duration{"new": made, "settle": settled} {
				slices.Sort(all)
				b.ReportMetric(float64(all[len(all)/2].Microseconds()), name+"-p50-us")
				b.ReportMetric(float64(all[len(all)-1].Microseconds()), name+"-max-us")
			}
			w := &watch{health: health.NewRegistry(), wake: make(chan struct{}, 1)}
			w.open(b, cfg)
			if err := w.Close(); err != nil {
				b.Error(err)
			}
		})
	}
}
