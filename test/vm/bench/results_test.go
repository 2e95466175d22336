package main

import (
	"strings"
	"testing"

	"bailey/test/vm/bench/figure"

	"github.com/google/go-cmp/cmp"
)

// openings makes results from lanes' open figures.
func openings(lanes map[string][]float64) *results {
	r := &results{}
	for _, name := range []string{"none", "agent_0", "guard", "guard_rules", "none_again"} {
		if figures, ok := lanes[name]; ok {
			r.Lanes = append(r.Lanes, figure.Lane{Name: name, Nanoseconds: map[string][]float64{figure.Open: figures}})
		}
	}
	return r
}

func TestWhatGotWorseIsNamed(t *testing.T) {
	t.Parallel()
	before := openings(map[string][]float64{"none": {100, 100, 101}, "guard": {104, 105, 106}})
	for name, tc := range map[string]struct {
		before *results
		now    map[string][]float64
		want   string // empty: nothing is named
	}{
		"the_same":          {before, map[string][]float64{"none": {100, 100, 101}, "guard": {106, 105, 104}}, ""},
		"within_the_margin": {before, map[string][]float64{"none": {100, 100, 101}, "guard": {107, 107, 107}}, ""},
		"slower":            {before, map[string][]float64{"none": {100, 100, 101}, "guard": {115, 110, 111}}, "guard open+read+close: ×1.110, was ×1.050 (+5.7 %)"},
		"batches_overlap":   {before, map[string][]float64{"none": {100, 100, 101}, "guard": {105, 109, 120}}, ""},
		"slower_machine":    {before, map[string][]float64{"none": {200, 200, 202}, "guard": {208, 210, 212}}, ""},
		"faster":            {before, map[string][]float64{"none": {100, 100, 101}, "guard": {99, 100, 101}}, ""},
		"another_lane":      {before, map[string][]float64{"none": {100, 100, 101}, "agent_0": {200, 200, 200}}, ""},
		"first_run":         {nil, map[string][]float64{"none": {100, 100, 101}, "guard": {200, 200, 200}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := strings.Join(openings(tc.now).worse(tc.before), ";"); got != tc.want {
				t.Errorf("worse = %q, want %q", got, tc.want)
			}
		})
	}
}

func TestPromisesThatAreNotKeptAreNamed(t *testing.T) {
	t.Parallel()
	r := openings(map[string][]float64{"none": {100}, "agent_0": {102}, "guard": {109}, "guard_rules": {112}})
	want := []string{"guard_rules open+read+close costs +9.8 % over agent_0, at most +8 %"}
	if diff := cmp.Diff(want, r.missed()); diff != "" {
		t.Error(diff)
	}
	table := r.table()
	for _, line := range []string{
		"| guard | agent_0 | open+read+close | +6.9 % | +8 % | yes |", "| guard_rules | agent_0 | open+read+close | +9.8 % | +8 % | no |",
		"| none | | 0.10 µs | | | | |", "| guard | | ×1.090 | | | | |",
	} {
		if !strings.Contains(table, line+"\n") {
			t.Errorf("the table has no line %q:\n%s", line, table)
		}
	}
}

func TestNoiseIsTheLargestDifference(t *testing.T) {
	t.Parallel()
	r := openings(map[string][]float64{"none": {100}, "none_again": {97}})
	r.Lanes[0].Nanoseconds[figure.Exec], r.Lanes[1].Nanoseconds[figure.Exec] = []float64{100}, []float64{101}
	if op, part := r.noise(); op != figure.Open || part < 0.0299 || part > 0.0301 {
		t.Errorf("noise = %s, %v", op, part)
	}
}

func TestResultsAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	const report = "VM-LSM bpf\nVM-RUN /tests/inside\n" + figure.Line + `{"name":"none","nanoseconds":{"exec":[3,1,2]}}` + "\n" +
		figure.Line + `{"name":"guard","nanoseconds":{"exec":[4]},"hooks":{"exec":[{"program":"executed","type":"lsm","calls":1,"nanoseconds":554}]}}` + "\nVM-EXIT 0\n"
	r, err := parse(report)
	if err != nil {
		t.Fatal(err)
	}
	if ratio, ok := r.ratio("guard", "none", figure.Exec); !ok || ratio != 2 {
		t.Errorf("the ratio of the medians is %v, %v", ratio, ok)
	}
	dir := t.TempDir()
	if err := r.write(dir, "table"); err != nil {
		t.Fatal(err)
	}
	again, err := readResults(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, again); diff != "" {
		t.Error(diff)
	}
	if _, err := parse("VM-EXIT 0\n"); err == nil {
		t.Error("a report without figures is read as a run")
	}
	if _, err := readResults(t.TempDir()); err == nil {
		t.Error("where no run was written one is read")
	}
}
