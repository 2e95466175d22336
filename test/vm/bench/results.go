package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bailey/test/vm/bench/figure"
)

// results are the figures of one run.
type results struct {
	Kernel    string        `json:"kernel"`
	Go        string        `json:"go"`                  // that built everything, in the guest too
	Fapolicyd string        `json:"fapolicyd,omitempty"` // its package
	Seconds   float64       `json:"seconds"`             // of the host's, for the whole machine
	Lanes     []figure.Lane `json:"lanes"`
}

// margin is the part by which a figure may be above the committed one: another program has its timers elsewhere.
const margin = 0.02

// promise is a limit on the figures of one lane by those of another.
type promise struct {
	lane, without, operation string
	limit                    float64 // of the ratio
}

// promises are what the guard and the rules may cost.
var promises = []promise{
	{"guard", "agent_0", figure.Exec, 1.03}, {"guard", "agent_0", figure.Open, 1.08},
	{"guard", "agent_0", figure.Create, 1.10}, {"guard", "agent_0", figure.Build, 1.02},
	{"guard_rules", "agent_0", figure.Exec, 1.03}, {"guard_rules", "agent_0", figure.Open, 1.08},
	{"guard_rules", "agent_0", figure.Create, 1.10}, {"guard_rules", "agent_0", figure.Build, 1.02},
}

// parse reads the report of a machine.
func parse(report string) (*results, error) {
	r := &results{}
	for line := range strings.Lines(report) {
		text, ok := strings.CutPrefix(line, figure.Line)
		if !ok {
			continue
		}
		var l figure.Lane
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			return nil, fmt.Errorf("read the machine's figures: %w", err)
		}
		r.Lanes = append(r.Lanes, l)
	}
	if len(r.Lanes) == 0 {
		return nil, errors.New("the machine reported no figures")
	}
	return r, nil
}

// of returns a lane's figures, the smallest first.
func (r *results) of(lane, operation string) []float64 {
	if r == nil {
		return nil
	}
	for _, l := range r.Lanes {
		if l.Name == lane {
			return slices.Sorted(slices.Values(l.Nanoseconds[operation]))
		}
	}
	return nil
}

// median returns the one in the middle, in nanoseconds.
func median(figures []float64) float64 { return figures[len(figures)/2] }

// ratio returns one lane's median divided by another's.
func (r *results) ratio(lane, other, operation string) (float64, bool) {
	a, b := r.of(lane, operation), r.of(other, operation)
	if len(a) == 0 || len(b) == 0 {
		return 0, false
	}
	return median(a) / median(b), true
}

// worse names the figures that are above those of an earlier run, as ratios to none: that machine may have had another kernel, or another
// Go to build with. Where the batches of the two runs overlap nothing got worse.
func (r *results) worse(before *results) []string {
	var out []string
	for _, l := range r.Lanes {
		for _, op := range figure.Operations {
			now, ok := r.ratio(l.Name, "none", op)
			was, also := before.ratio(l.Name, "none", op)
			if !ok || !also || now <= was*(1+margin) {
				continue
			}
			mine, theirs := r.of(l.Name, op), before.of(l.Name, op)
			scale := median(r.of("none", op)) / median(before.of("none", op))
			if mine[len(mine)/4] > theirs[len(theirs)*3/4]*scale {
				out = append(out, fmt.Sprintf("%s %s: ×%.3f, was ×%.3f (%+.1f %%)", l.Name, op, now, was, (now/was-1)*100))
			}
		}
	}
	return out
}

// noise is the largest difference between none and none_again.
func (r *results) noise() (operation string, part float64) {
	for _, op := range figure.Operations {
		if v, ok := r.ratio("none_again", "none", op); ok && math.Abs(v-1) >= part {
			operation, part = op, math.Abs(v-1)
		}
	}
	return operation, part
}

// missed names the promises that this run does not keep.
func (r *results) missed() []string {
	var out []string
	for _, p := range promises {
		if v, ok := r.ratio(p.lane, p.without, p.operation); ok && v > p.limit {
			out = append(out, fmt.Sprintf("%s %s costs %+.1f %% over %s, at most %+.0f %%", p.lane, p.operation, (v-1)*100, p.without, (p.limit-1)*100))
		}
	}
	return out
}

// readResults reads the committed run.
func readResults(dir string) (*results, error) {
	text, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		return nil, fmt.Errorf("read the committed run: %w", err)
	}
	r := &results{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("read the committed run: %w", err)
	}
	return r, nil
}

// write stores the JSON and the table.
func (r *results) write(dir, table string) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("store the results: %w", err)
	}
	// A line for each lane: enough to see in a diff what changed.
	lines := strings.ReplaceAll(string(text), `{"name"`, "\n"+`{"name"`)
	err = errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "results.json"), []byte(lines+"\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "results.md"), []byte(table), 0o644))
	if err != nil {
		return fmt.Errorf("store the results: %w", err)
	}
	return nil
}
