// Package question_test measures what one uncached open costs while products are asked about it: kernel, file sensor,
// verdict engine, hub, link and SDK for real, products and opener in processes of their own, on a scratch tmpfs. All lanes
// are measured in one run, one after the other round by round, so that a busy machine is as unkind to each. It is no test
// of correctness. Run it as root with
//
//	go test -run '^$' -bench . -benchtime 1x ./test/bench/question
//
// Priorities are those of a running agent and its products. "one" has agent, products and opener on the same CPU, "free"
// leaves them to the scheduler. Lanes: none has no marks, inline has marks and nobody to ask, products_N asks N products that
// allow. Their medians are per open and close; added_X is what lane X adds to none. one/inline and eight/one are the ratios
// that the project promises to keep.
package question_test

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"bailey/internal/roottest"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(envProduct) != "":
		product()
	case os.Getenv(envOpener) != "":
		opener()
	default:
		os.Exit(m.Run())
	}
}

// The size of one run: each lane is visited in every round.
const (
	rounds  = 9
	warmups = 300
	opens   = 1500
)

// lane is one state of the machine.
type lane struct {
	name     string
	marks    bool
	products int
}

var lanes = []lane{
	{"none", false, 0}, {"inline", true, 0}, {"products_1", true, 1}, {"products_4", true, 4}, {"products_8", true, 8},
}

// BenchmarkOpen is one uncached open and close in each lane.
func BenchmarkOpen(b *testing.B) {
	roottest.Require(b, "fanotify permission marks need CAP_SYS_ADMIN")
	for _, where := range []string{"one", "free"} {
		b.Run(where, func(b *testing.B) { measure(b, where == "one") })
	}
}

func measure(b *testing.B, one bool) {
	if one {
		pin(b)
	}
	prefer(b)
	w := newWorld(b)
	took := make(map[string][]time.Duration)
	for b.Loop() {
		for range rounds {
			for _, l := range lanes {
				took[l.name] = append(took[l.name], w.visit(l))
			}
		}
	}
	report(b, took)
}

// visit brings the lane about, measures the median of some opens in it and ends it.
func (w *world) visit(l lane) time.Duration {
	for i := range l.products {
		w.attach(fmt.Sprint("p", i))
	}
	w.files.SetQuestions(false, l.marks)
	w.opener.open(w.tb, warmups)
	before := w.engine.Stats().Questions
	d := w.opener.open(w.tb, opens)
	asked := w.engine.Stats().Questions - before
	if want := uint64(opens); l.marks && asked != want || !l.marks && asked != 0 {
		w.tb.Fatalf("%s: %d opens, %d questions", l.name, opens, asked)
	}
	w.files.SetQuestions(false, false)
	w.detachAll()
	w.check()
	return d
}

func report(b *testing.B, took map[string][]time.Duration) {
	b.Helper()
	base := median(took["none"])
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(micros(base), "none_µs")
	added := make(map[string]float64)
	for _, l := range lanes[1:] {
		added[l.name] = micros(median(took[l.name]) - base)
		b.ReportMetric(added[l.name], "added_"+l.name+"_µs")
	}
	b.ReportMetric(added["products_1"]/added["inline"], "one/inline")
	b.ReportMetric(added["products_4"]/added["products_1"], "four/one")
	b.ReportMetric(added["products_8"]/added["products_1"], "eight/one")
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

// pin moves every thread of this process, and so its children, to the first CPU it may use, until b ends.
func pin(b *testing.B) {
	b.Helper()
	var before, first unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		b.Fatal(err)
	}
	for cpu := range 1024 {
		if before.IsSet(cpu) {
			first.Set(cpu)
			break
		}
	}
	set := func(s *unix.CPUSet) {
		eachThread(b, func(tid int) { _ = unix.SchedSetaffinity(tid, s) })
	}
	procs := runtime.GOMAXPROCS(1)
	set(&first)
	b.Cleanup(func() {
		set(&before)
		runtime.GOMAXPROCS(procs)
	})
}

// eachThread calls f for every thread of this process. One may have ended meanwhile.
func eachThread(b *testing.B, f func(tid int)) {
	b.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		b.Fatal(err)
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			b.Fatal(err)
		}
		f(tid)
	}
}
