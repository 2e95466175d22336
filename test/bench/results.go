package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// results are the samples of one run and what they were measured on.
type results struct {
	Time       string              `json:"time"`
	Kernel     string              `json:"kernel"`
	CPUs       int                 `json:"cpus"`
	Go         string              `json:"go"`
	Filesystem string              `json:"filesystem"`
	Fapolicyd  string              `json:"fapolicyd,omitempty"`
	Rounds     int                 `json:"rounds"`
	Files      int                 `json:"files"`
	Execs      int                 `json:"execs"`
	Load       string              `json:"load_at_start"` // of the machine: above the number of CPUs the ratios mean little
	Lanes      []string            `json:"lanes"`
	Samples    map[string][]sample `json:"samples_seconds"`
	Fine       map[string][]sample `json:"fine_samples_seconds"`
	Builds     map[string][]sample `json:"build_samples_seconds"`
	Ratios     map[string]ratios   `json:"median_ratios"`
	FineRatios map[string]spreads  `json:"fine_ratios"`
	Targets    []target            `json:"targets"`
}

// ratios holds, for each metric, the median over the rounds of a lane's time divided by none's in the same round.
type ratios map[string]float64

// spreads holds, for each metric, how the ratios of the fine rounds are spread.
type spreads map[string]spread

// spread is a median with the bounds between which the true median lies in 95 of 100 runs (by the ranks of the sample).
type spread struct {
	Low    float64 `json:"low"`
	Median float64 `json:"median"`
	High   float64 `json:"high"`
}

// target is one promise about the ratios and whether this run kept it. A run that cannot tell says so.
type target struct {
	Promise  string  `json:"promise"`
	Metric   string  `json:"metric"`
	Measured float64 `json:"measured"`
	Low      float64 `json:"low,omitempty"` // with fine rounds: as in spread
	High     float64 `json:"high,omitempty"`
	Limit    float64 `json:"limit"`
	Kept     bool    `json:"kept"`
}

func newResults(w *world, o options, lanes []lane) *results {
	var u unix.Utsname
	_ = unix.Uname(&u)
	load, _ := os.ReadFile("/proc/loadavg")
	r := &results{Time: time.Now().UTC().Format(time.RFC3339), Kernel: unix.ByteSliceToString(u.Release[:]), CPUs: runtime.NumCPU(), Go: runtime.Version(),
		Filesystem: w.fsType, Rounds: o.rounds, Files: o.files, Execs: o.execs, Load: strings.TrimSpace(string(load)), Samples: map[string][]sample{},
		Fine: map[string][]sample{}, Builds: map[string][]sample{}, Ratios: map[string]ratios{}, FineRatios: map[string]spreads{}}
	for _, l := range lanes {
		r.Lanes = append(r.Lanes, l.name())
		if f, ok := l.(*fapolicydLane); ok {
			r.Fapolicyd = f.d.version
		}
	}
	return r
}

func (r *results) add(lane string, s sample)     { r.Samples[lane] = append(r.Samples[lane], s) }
func (r *results) addFine(lane string, s sample) { r.Fine[lane] = append(r.Fine[lane], s) }
func (r *results) addBuild(lane string, s sample) {
	r.Builds[lane] = append(r.Builds[lane], s)
}

// compare fills Ratios, FineRatios and Targets.
func (r *results) compare() {
	for lane := range r.Samples {
		r.Ratios[lane] = ratios{}
		for _, m := range metrics {
			if all := paired(r.Samples, lane, m); len(all) > 0 {
				r.Ratios[lane][m] = median(all)
			}
		}
	}
	for _, samples := range []map[string][]sample{r.Fine, r.Builds} {
		for lane := range samples {
			if r.FineRatios[lane] == nil {
				r.FineRatios[lane] = spreads{}
			}
			for _, m := range metrics {
				if all := paired(samples, lane, m); len(all) >= 8 {
					r.FineRatios[lane][m] = spreadOf(all)
				}
			}
		}
	}
	r.targets()
}

// paired returns a lane's times divided by those of none in the same round.
func paired(samples map[string][]sample, lane, metric string) []float64 {
	var all []float64
	for round, s := range samples[lane] {
		if base := samples["none"]; round < len(base) && base[round][metric] > 0 && s[metric] > 0 {
			all = append(all, s[metric]/base[round][metric])
		}
	}
	return all
}

// spreadOf returns the median and its bounds: the values whose ranks are 0.98 times the square root of n from the middle.
func spreadOf(all []float64) spread {
	s := slices.Sorted(slices.Values(all))
	half := 0.98 * math.Sqrt(float64(len(s)))
	low := max(0, int(math.Floor(float64(len(s))/2-half)))
	high := min(len(s)-1, int(math.Ceil(float64(len(s))/2+half)))
	return spread{Low: s[low], Median: median(s), High: s[high]}
}

// targets checks what docs/architecture.md promises.
func (r *results) targets() {
	for _, m := range metrics {
		r.promise("nothing subscribed costs at most 1 %", "agent_0", m, 1.01)
		if m != metricExec {
			r.promise("a cached allowlist costs at most 3 %", "agent_allowlist", m, 1.03)
		}
		if m != metricOpenCold && m != metricTar { // these two ask about each file for the first time
			if allow, ok := r.ratio("fapolicyd_allow_all", m); ok {
				r.promise("a cached product beats fapolicyd's allow-all", "agent_1_cached", m, allow)
			}
		}
	}
	if theirs, ok := r.Ratios["fapolicyd_sample_rules"][metricOpenCold]; ok {
		r.promise("reading all files cold beats fapolicyd's sample rules five times", "agent_1_cached", metricOpenCold, theirs/5)
	}
}

// ratio is the median ratio of the rounds that say most about it.
func (r *results) ratio(lane, metric string) (float64, bool) {
	if v, ok := r.FineRatios[lane][metric]; ok {
		return v.Median, true
	}
	v, ok := r.Ratios[lane][metric]
	return v, ok
}

func (r *results) promise(text, lane, metric string, limit float64) {
	if v, ok := r.FineRatios[lane][metric]; ok {
		r.Targets = append(r.Targets, target{Promise: text, Metric: lane + " " + metric, Measured: v.Median, Low: v.Low, High: v.High, Limit: limit, Kept: v.Median <= limit})
		return
	}
	if v, ok := r.Ratios[lane][metric]; ok {
		r.Targets = append(r.Targets, target{Promise: text, Metric: lane + " " + metric, Measured: v, Limit: limit, Kept: v <= limit})
	}
}

// write stores the JSON and the table.
func (r *results) write(dir string) error {
	r.compare()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("store the results: %w", err)
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("store the results: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("store the results: %w", err)
	}
	table := r.table()
	fmt.Print(table)
	return os.WriteFile(filepath.Join(dir, "results.md"), []byte(table), 0o644)
}

// table shows times for none and ratios for the rest.
func (r *results) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# What questions cost\n\nMedian ratios to the machine without an agent, %d rounds, interleaved in one run. %s, Linux %s, %d CPUs, load %s, %s on a loop image, %s",
		r.Rounds, r.Time, r.Kernel, r.CPUs, strings.Split(r.Load+" ", " ")[0], r.Filesystem, r.Go)
	if r.Fapolicyd != "" {
		fmt.Fprintf(&b, ", fapolicyd %s (permissive, trust by file, watching the bench's filesystem alone)", r.Fapolicyd)
	}
	fmt.Fprintf(&b, ".\n\nexec: %d executions of a static program that exits. open_cold: open, read and close of %d files that the lane has not seen; "+
		"open_cached: the same again. The page cache is warm in both. go_build: this repository's packages, dependencies from the cache. "+
		"tar: the Go source tree into a pipe, tar_again: once more. Trivial products (agent_N) allow without caching; agent_1_cached lets the kernel remember.\n\n", r.Execs, r.Files)
	fmt.Fprintf(&b, "| lane | %s |\n|---|%s\n", strings.Join(metrics, " | "), strings.Repeat("--:|", len(metrics)))
	for _, lane := range r.Lanes {
		fmt.Fprintf(&b, "| %s |", lane)
		for _, m := range metrics {
			switch v, ok := r.Ratios[lane][m]; {
			case !ok:
				b.WriteString(" |")
			case lane == "none":
				fmt.Fprintf(&b, " %.3f s |", r.medianSeconds(lane, m))
			default:
				fmt.Fprintf(&b, " ×%.2f |", v)
			}
		}
		b.WriteString("\n")
	}
	if len(r.Targets) > 0 {
		b.WriteString("\n| promise | measured on | measured | limit | kept |\n|---|---|--:|--:|---|\n")
	}
	for _, t := range r.Targets {
		fmt.Fprintf(&b, "| %s | %s | %s | ×%.3f | %s |\n", t.Promise, t.Metric, t.measured(), t.Limit, t.verdict())
	}
	if len(r.FineRatios) > 0 {
		fmt.Fprintf(&b, "\nMeasured values with bounds are medians of further rounds of these lanes alone (%d, of go build %d); the true median lies between the bounds in 95 of 100 runs.\n",
			len(r.Fine["none"]), len(r.Builds["none"]))
	}
	return b.String()
}

func (t target) measured() string {
	if t.High == 0 {
		return fmt.Sprintf("×%.3f", t.Measured)
	}
	return fmt.Sprintf("×%.3f (%.3f to %.3f)", t.Measured, t.Low, t.High)
}

// verdict says whether the promise was kept and whether the noise of the run lets one say so.
func (t target) verdict() string {
	switch {
	case t.Kept && t.High > t.Limit:
		return "yes, within noise"
	case t.Kept:
		return "yes"
	case t.High > 0 && t.Low <= t.Limit:
		return fmt.Sprintf("missed by %.1f %%, within noise", (t.Measured/t.Limit-1)*100)
	default:
		return fmt.Sprintf("no, by %.1f %%", (t.Measured/t.Limit-1)*100)
	}
}

func (r *results) medianSeconds(lane, metric string) float64 {
	var all []float64
	for _, s := range r.Samples[lane] {
		all = append(all, s[metric])
	}
	return median(all)
}
