package incident

import (
	"strings"
	"testing"
	"time"

	"bailey/test/rig"
)

// Trend Micro pattern 2.594.00.
//
// Date: 2005-04-23.
// Source: japantimes.co.jp, 2005-04-23; computerworld.co.nz/article/130798.
// Shipped: decompression heuristics that looped: processors were busy to the last, machines did not come up again, railways stood still.
// Must: G1 G2 G4 G5. The product has its share of the processors and no more, gets no real-time priority, and others' questions are
// answered meanwhile.
func TestC07RunawayEngine(t *testing.T) {
	s := newScene(t)
	s.replay(story{ID: "C7-01", Name: "Trend Micro pattern 2.594.00, 2005", Must: "G1 G2 G4 G5",
		Did: "spins on 64 threads after asking for real-time priority"}, func(r *replay) {
		sp := r.spec(map[string]string{"fault": "spin", "at": "ready"})
		sp.Limits = "cpu = 0.5\npids = 256\n"
		r.plays(sp)
		asked := r.finding("spin", 10*time.Second, r.ofCulprit).GetFields()
		if !strings.Contains(asked["realtime"], "not permitted") || strings.Contains(asked["nice"], "nil") {
			r.errorf("it may have more than others: %v", asked)
		}
		used, start := r.usage(r.name), time.Now()
		r.watchFor(1500 * time.Millisecond)
		took := time.Since(start)
		// What is sampled is up to five seconds old; the control group's own account is exact.
		if got := r.usage(r.name) - used; float64(got) > 0.5*quota*float64(took) {
			r.errorf("it used %s of processor time in %s, half a processor is its share", got, took)
		}
	})
	s.replay(story{ID: "C7-x1", Name: "another trigger: the loop is in the answer", Must: "G1 G2 G4 G5",
		Did: "spins for ever in each answer, on every worker"}, func(r *replay) {
		r.plays(r.spec(map[string]string{"fault": "spin", "at": "question", "hang": "true"}))
		r.watch(func() { r.until("it is not waited for", notAnswering, r.isDegraded) })
	})
}

// Malwarebytes 1.0.3798.
//
// Date: 2018-01-27.
// Source: the vendor's own post on it.
// Shipped: a web filter's rules that made the engine take all memory and all processor time; machines were too slow to fetch the cure.
// Must: G1 G4 G5. Whatever a product takes, memory, descriptors, processes, disk, log, is bounded; only it is killed for it; the
// agent goes on and can be told what to do.
func TestC07Exhaustion(t *testing.T) {
	s := newScene(t)
	const name = "Malwarebytes 1.0.3798, 2018"
	for _, c := range []struct {
		story
		fault, limits string
		check         func(*replay)
	}{
		{story{ID: "C7-02a", Name: name, Must: "G1 G4 G5", Did: "takes 200 MiB of memory a second"}, "memory", "memory = \"64MiB\"\n", outOfMemory},
		{story{ID: "C7-02b", Name: name, Must: "G1 G4", Did: "opens 100,000 descriptors"}, "files", "", func(r *replay) { r.wasStopped("files", "too many open files") }},
		{story{ID: "C7-02c", Name: name, Must: "G1 G4", Did: "starts 50,000 processes"}, "processes", "", func(r *replay) { r.wasStopped("processes", "temporarily unavailable") }},
		{story{ID: "C7-02d", Name: name, Must: "G1 G4", Did: "floods its log"}, "log", "log = \"1MiB\"\n", logIsBounded},
		{story{ID: "C7-02e", Name: name, Must: "G1 G4", Did: "maps a tebibyte and touches it"}, "map", "memory = \"64MiB\"\n", nil},
		{story{ID: "C7-02f", Name: name, Must: "G1 G4", Long: true, Did: "fills its state directory"}, "state", "state = \"4MiB\"\n", stateIsBounded},
		{story{ID: "C7-02g", Name: name, Must: "G1 G4", Long: true, Did: "floods the agent with findings"}, "findings", "", nil},
	} {
		s.replay(c.story, func(r *replay) {
			sp := r.spec(map[string]string{"fault": c.fault, "at": "ready"})
			sp.Limits = c.limits
			r.watch(func() {
				r.plays(sp)
				time.Sleep(800 * time.Millisecond)
				if c.check != nil {
					c.check(r)
				}
				r.Must("status") // the operator is heard meanwhile
			})
		})
	}
	s.replay(story{ID: "C7-02", Name: name, Must: "G1 G4 G5", Long: true, Did: "six products that exhaust six things at once"}, func(r *replay) {
		r.watch(func() {
			for _, f := range []string{"memory", "files", "processes", "log", "map", "state"} {
				r.attempts(rig.Spec{Name: "all-" + f, Questions: "exec,open", Settings: map[string]string{"fault": f, "at": "ready"},
					Limits: "memory = \"64MiB\"\nstate = \"4MiB\"\nlog = \"1MiB\"\ncpu = 0.2\n"})
			}
			time.Sleep(8 * time.Second)
		})
	})
}
