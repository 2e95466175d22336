package rehearsal

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bailey/agent/recorder"
	controlv1 "bailey/api/control/v1"
	"bailey/test/rig"

	"connectrpc.com/connect"
)

var (
	rounds  = flag.Int("rounds", 1, "how often a rehearsal and a rest of the same length follow each other")
	fill    = flag.Int64("fill", 0, "how many bytes of a past there are on the disk before, unless the recorder is full with less; 0: as many questions as a rehearsal asks")
	results = flag.String("results", "", "the file that the results are written to")
)

var built string

func TestMain(m *testing.M) {
	flag.Parse()
	rig.Main(m, &built, "bailey", "faulty")
}

const (
	files    = 4500                   // more than a rehearsal asks about
	longest  = time.Minute            // that a rehearsal may take
	deadline = 700 * time.Millisecond // of an exec, which is opened too, in nanoseconds
	moreRAM  = 64 << 20               // that the agent may need for it
)

// side is what was felt in one kind of time.
type side struct {
	execs, opens []time.Duration
	memory       int64 // the most that the agent had, of its own
}

// afterwards is the stage of a rehearsal that follows when the release was told and asked everything.
const afterwards = "watching"

// TestRehearsalIsNotFelt measures, and fails where a rehearsal takes longer or more than it may. Whether a figure is within the noise a reader of the
// results says: a shared machine is no judge.
func TestRehearsalIsNotFelt(t *testing.T) {
	a := rig.Start(t, built, "")
	a.Install(rig.Spec{Name: "engine", Version: "1.0.0", Events: "exec,exit,fork", Questions: "exec,open"})
	past(a)
	b := &bench{a: a, program: a.Program("canary"), file: a.File("canary.txt", "text", 0o644), pid: a.Status().GetPid()}
	next := rig.Spec{Name: "engine", Version: "1.1.0", Events: "exec,exit,fork", Questions: "exec,open"}
	folder := a.Folder(next)
	rest, all, asked := &side{}, &side{}, &side{}
	var report *controlv1.Rehearsal
	var rests []*side
	length := 7 * time.Second
	for range *rounds {
		one := &side{}
		b.measure(func() { <-time.After(length) }, one, nil)
		rests = append(rests, one)
		rest.add(one)
		begin := time.Now()
		b.measure(func() { report = b.rehearse(folder) }, all, asked)
		length = time.Since(begin)
	}
	check(t, report, rest, all)
	text := b.table(report, rest, all, asked, rests)
	t.Log("\n" + text)
	if *results != "" {
		if err := os.WriteFile(*results, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func check(t *testing.T, r *controlv1.Rehearsal, rest, all *side) {
	t.Helper()
	if took := time.Duration(r.GetTook()); took > longest || !r.GetPassed() || r.GetUnasked() > 0 {
		t.Errorf("it took %v, passed: %t %v, %d not asked", took, r.GetPassed(), r.GetReasons(), r.GetUnasked())
	}
	if r.GetRecorded() < files*9/10 {
		t.Errorf("of the past %d questions were asked", r.GetRecorded())
	}
	if worst := slices.Max(all.execs); worst > deadline {
		t.Errorf("an exec took %v", worst)
	}
	if more := all.memory - rest.memory; more > moreRAM {
		t.Errorf("the agent needed %d MiB more", more>>20)
	}
}

// past makes one: files that are opened, each once, and then again until there is as much on the disk as is wanted.
func past(a *rig.Agent) {
	a.T.Helper()
	var paths []string
	for i := range files {
		paths = append(paths, a.File(fmt.Sprintf("past/%d/f%d", i%64, i), fmt.Sprint("text ", i), 0o644))
	}
	program := a.Program("worker")
	var oldest string
	for i := 0; ; i++ {
		f, err := os.Open(paths[i%len(paths)])
		if err != nil {
			a.T.Fatal(err)
		}
		_ = f.Close() // it was only looked at
		if i%20 == 0 {
			if err := exec.Command(program).Run(); err != nil {
				a.T.Fatal(err)
			}
		}
		if i < 2*len(paths) || i%1000 != 0 {
			continue
		}
		sum, first := stored(a)
		full := oldest != "" && first != oldest // it gave its oldest away
		if oldest = first; sum >= *fill || full {
			break
		}
	}
	a.Eventually("the past is on the disk", time.Minute, func() error {
		out := a.Must("history", "--state", a.State, "--kind", "verdict", "--limit", "1")
		if strings.TrimSpace(out) == "" {
			return errors.New("nothing is")
		}
		return nil
	})
	sum, _ := stored(a)
	a.T.Logf("%d MiB are recorded", sum>>20)
}

// stored is how much is recorded, on the disk, and in which file the oldest of it is.
func stored(a *rig.Agent) (sum int64, first string) {
	a.T.Helper()
	err := filepath.WalkDir(filepath.Join(a.State, recorder.DirName), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		if first == "" { // in the order of their names
			first = path
		}
		return nil // one that was overwritten meanwhile
	})
	if err != nil {
		a.T.Fatal(err)
	}
	return sum, first
}

// bench measures on one agent.
type bench struct {
	a       *rig.Agent
	program string
	file    string
	pid     uint32

	mu     sync.Mutex
	asking bool
}

// measure has a canary executed and a file opened again and again while f runs. What is felt while a release is asked goes to asked as well.
func (b *bench) measure(f func(), to, asked *side) {
	b.a.T.Helper()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			one := &side{}
			if err := b.feel(one, n); err != nil {
				b.a.T.Error(err)
				return
			}
			to.add(one)
			if b.isAsked() && asked != nil {
				asked.add(one)
			}
		}
	}()
	f()
	close(stop)
	<-done
}

// feel is one sample.
func (b *bench) feel(one *side, n int) error {
	for range 4 {
		start := time.Now()
		f, err := os.Open(b.file)
		if err != nil {
			return err
		}
		one.opens = append(one.opens, time.Since(start))
		_ = f.Close() // it was only looked at
	}
	start := time.Now()
	if err := exec.Command(b.program).Run(); err != nil {
		return err
	}
	one.execs = append(one.execs, time.Since(start))
	if n%8 == 0 {
		one.memory = b.memory()
	}
	return nil
}

// memory is what the agent has of its own.
func (b *bench) memory() int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			return n << 10
		}
	}
	return 0
}

func (b *bench) isAsked() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asking
}

func (b *bench) setAsked(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asking = on
}

// rehearse has a folder rehearsed and returns the report.
func (b *bench) rehearse(folder string) (r *controlv1.Rehearsal) {
	b.a.T.Helper()
	ctx := context.Background()
	plan, err := b.a.Client.ProductPlan(ctx, connect.NewRequest(&controlv1.ProductPlanRequest{Path: folder}))
	if err != nil {
		b.a.T.Fatal(err)
	}
	b.setAsked(true)
	s, err := b.a.Client.ProductRehearse(ctx, connect.NewRequest(&controlv1.ProductRehearseRequest{Path: folder, Approved: plan.Msg.GetHash()}))
	if err != nil {
		b.a.T.Fatal(err)
	}
	for s.Receive() {
		if s.Msg().GetProgress().GetStage() == afterwards {
			b.setAsked(false)
		}
		r = s.Msg().GetReport()
	}
	b.setAsked(false)
	if err := errors.Join(s.Err(), s.Close()); err != nil || r == nil {
		b.a.T.Fatalf("no report: %v", err)
	}
	return r
}

func (s *side) add(o *side) {
	s.execs, s.opens, s.memory = append(s.execs, o.execs...), append(s.opens, o.opens...), max(s.memory, o.memory)
}

// at is what so many of a hundred did not exceed.
func at(list []time.Duration, ofHundred int) time.Duration {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[min(len(sorted)*ofHundred/100, len(sorted)-1)]
}

// table is what was found.
func (b *bench) table(r *controlv1.Rehearsal, rest, all, asked *side, rests []*side) string {
	var out strings.Builder
	recorded, _ := stored(b.a)
	fmt.Fprintf(&out, `# What a rehearsal costs the machine

%s, %d processors, load %s, %d rounds of a rehearsal and a rest of the same length, in turn, on a recorder of %d MiB. In each a program that exits is
executed and a file opened again and again; both are asked about. See [test/bench/rehearsal](../rehearsal/doc.go).

| | execs | median | p99 | longest | opens | median | p99 | longest | agent's memory at most |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
`, time.Now().UTC().Format(time.DateOnly), processors(), load(), *rounds, recorded>>20)
	for _, l := range []struct {
		name string
		s    *side
	}{{"at rest", rest}, {"during a rehearsal", all}, {"of that, while it is asked", asked}} {
		if len(l.s.execs) == 0 {
			continue
		}
		fmt.Fprintf(&out, "| %s | %d | %s | %s | %s | %d | %s | %s | %s | %.1f MiB |\n", l.name, len(l.s.execs), us(at(l.s.execs, 50)), us(at(l.s.execs, 99)), us(slices.Max(l.s.execs)),
			len(l.s.opens), us(at(l.s.opens, 50)), us(at(l.s.opens, 99)), us(slices.Max(l.s.opens)), float64(l.s.memory)/(1<<20))
	}
	fmt.Fprintf(&out, `
The memory at rest is what the agent has kept of the rehearsals before.

One rest is not like another, which is the noise: their medians of execs are from %s, of opens from %s; their 99th percentiles of execs from %s, of
opens from %s.

The last rehearsal took %s: %d questions of the past, %d about critical files, %d of the common corpus, %d about good files, %d events; half of the
answers within %s, 99 %% within %s, at idle priority. The release needed %.1f MiB.
`, spread(rests, execsOf, 50), spread(rests, opensOf, 50), spread(rests, execsOf, 99), spread(rests, opensOf, 99), time.Duration(r.GetTook()).Round(time.Millisecond), r.GetRecorded(), r.GetCritical(), r.GetCorpus(), r.GetGood(),
		r.GetEvents(), us(time.Duration(r.GetLatencyP50())), us(time.Duration(r.GetLatencyP99())), float64(r.GetMemory())/(1<<20))
	return out.String()
}

func execsOf(s *side) []time.Duration { return s.execs }
func opensOf(s *side) []time.Duration { return s.opens }

// spread is the least and the most of a percentile among several sides.
func spread(sides []*side, of func(*side) []time.Duration, ofHundred int) string {
	var found []time.Duration
	for _, s := range sides {
		found = append(found, at(of(s), ofHundred))
	}
	return us(slices.Min(found)) + " to " + us(slices.Max(found))
}

func us(d time.Duration) string { return fmt.Sprintf("%.0f µs", float64(d)/1e3) }

func processors() int {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return 0
	}
	return strings.Count(string(text), "processor\t:")
}

func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Fields(string(text))[0]
}
