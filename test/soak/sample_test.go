package soak

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"bailey/agent/keeper"
)

// sample is what is there at one moment. Memory is resident and not shared, in KiB.
type sample struct {
	at                                   time.Time
	agent, keeper                        int // pids
	agentMemory, keeperMemory            float64
	agentFiles, keeperFiles              float64
	goroutines                           float64
	marks, groups, pins, mounts, helpers float64
}

func (s *soak) sample() sample {
	k, err := keeper.ReadState(s.a.Run)
	if err != nil {
		s.t.Fatal(err)
	}
	x := sample{at: time.Now(), agent: k.Agent, keeper: k.Keeper}
	x.agentMemory, x.keeperMemory = memory(k.Agent), memory(k.Keeper)
	x.agentFiles, x.keeperFiles = entries(fmt.Sprintf("/proc/%d/fd", k.Agent)), entries(fmt.Sprintf("/proc/%d/fd", k.Keeper))
	x.goroutines = s.metric("go_goroutines")
	x.marks = superblockMarks(k.Agent)
	for _, tree := range trees() {
		x.groups += entries(tree)
	}
	for _, pattern := range []string{"/sys/fs/bpf/bailey-*/*", s.a.Run + "/bpf/*/*"} {
		found, _ := filepath.Glob(pattern) // the pattern is a constant
		x.pins += float64(len(found))
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo") // empty is found out by the comparison
	x.mounts = float64(bytes.Count(mounts, []byte(s.a.Dir)))
	x.helpers = children(k.Keeper) + children(k.Agent)
	return x
}

// memory is what a process has in memory for itself.
func memory(pid int) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, _ := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return n
		}
	}
	return 0
}

// progress tells a long run's reader where the memory is: what is allocated, what the heap's spans take of it, and the rest of the runtime.
func (s *soak) progress(name string, x sample) {
	mib := func(metric string) float64 { return s.metric("go_memstats_"+metric) / (1 << 20) }
	s.t.Logf("%s: agent %.1f MiB (allocated %.1f, in spans %.1f, idle %.1f, given back %.1f, stacks %.1f, of the runtime %.1f), keeper %.2f MiB",
		name, x.agentMemory/1024, mib("heap_alloc_bytes"), mib("heap_inuse_bytes"), mib("heap_idle_bytes"), mib("heap_released_bytes"),
		mib("stack_inuse_bytes"), mib("mspan_sys_bytes")+mib("mcache_sys_bytes")+mib("buck_hash_sys_bytes")+mib("gc_sys_bytes")+mib("other_sys_bytes"),
		x.keeperMemory/1024)
}

func entries(dir string) float64 {
	list, _ := os.ReadDir(dir)
	return float64(len(list))
}

func children(pid int) float64 {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	n := 0
	for _, t := range tasks {
		text, _ := os.ReadFile(t)
		n += len(strings.Fields(string(text)))
	}
	return float64(n)
}

// superblockMarks counts the file systems that the agent's fanotify groups have marked.
func superblockMarks(pid int) float64 {
	infos, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	n := 0
	for _, i := range infos {
		text, _ := os.ReadFile(i)
		n += bytes.Count(text, []byte("fanotify sdev:"))
	}
	return float64(n)
}

// trees are the control groups of agents' products, in each hierarchy.
func trees() []string {
	var out []string
	for _, pattern := range []string{"/sys/fs/cgroup/bailey-*", "/sys/fs/cgroup/*/bailey-*"} {
		found, _ := filepath.Glob(pattern)
		out = append(out, found...)
	}
	return out
}

func (s *soak) metric(name string) float64 {
	out, err := s.a.Bailey("metrics")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(out) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.ParseFloat(strings.TrimSpace(v), 64)
			return n
		}
	}
	return 0
}

// judge compares the samples after the warm-up, a half, with one another: counts must come back to what they were, and
// memory must not have a slope. Short runs are judged by what they can show. The warm-up is long because a Go heap whose contents stay the
// same goes on touching further pages of what it has for many collections, and those of a keeper are locked: they never go back.
func (s *soak) judge(name string, samples []sample, d time.Duration) {
	s.t.Helper()
	samples = samples[len(samples)/2:]
	if len(samples) < 4 {
		s.t.Fatalf("%s: %d samples say nothing", name, len(samples))
	}
	for _, count := range []struct {
		what  string
		of    func(sample) float64
		slack float64
	}{
		{"descriptors of the agent", func(x sample) float64 { return x.agentFiles }, 4},
		{"descriptors of the keeper", func(x sample) float64 { return x.keeperFiles }, 2},
		{"goroutines", func(x sample) float64 { return x.goroutines }, 6},
		{"marks", func(x sample) float64 { return x.marks }, 0},
		{"control groups", func(x sample) float64 { return x.groups }, 0},
		{"pins", func(x sample) float64 { return x.pins }, 0},
		{"mounts", func(x sample) float64 { return x.mounts }, 0},
		{"helpers", func(x sample) float64 { return x.helpers }, 1},
	} {
		first, last := medianOf(samples[:len(samples)/2], count.of), medianOf(samples[len(samples)/2:], count.of)
		s.t.Logf("%s: %s %v, then %v", name, count.what, first, last)
		if last > first+count.slack {
			s.t.Errorf("%s: %s grew from %v to %v", name, count.what, first, last)
		}
	}
	s.memory(name, "keeper", samples, d, func(x sample) float64 { return x.keeperMemory })
	if samples[0].agent == samples[len(samples)-1].agent {
		s.memory(name, "agent", samples, d, func(x sample) float64 { return x.agentMemory })
	}
}

// memory judges the slope in percent of the mean per hour, as far as the scatter of the samples lets one tell it from none. In less
// than ten minutes a garbage collector's saw teeth are all that a slope shows, and then only a half more is too much.
func (s *soak) memory(name, who string, samples []sample, d time.Duration, of func(sample) float64) {
	s.t.Helper()
	slope, scatter, mean := regression(samples, of)
	s.t.Logf("%s: the %s holds %.0f KiB, slope %+.2f %% an hour (± %.2f)", name, who, mean, slope/mean*100, 2*scatter/mean*100)
	first, last := medianOf(samples[:len(samples)/2], of), medianOf(samples[len(samples)/2:], of)
	switch {
	case d >= 10*time.Minute && slope-2*scatter > mean/100:
		s.t.Errorf("%s: the %s's memory grows by %.2f %% an hour", name, who, slope/mean*100)
	case last > first*1.5+1024:
		s.t.Errorf("%s: the %s's memory grew from %.0f to %.0f KiB", name, who, first, last)
	}
}

// regression returns the slope an hour with its standard error, and the mean, by least squares.
func regression(samples []sample, of func(sample) float64) (slope, scatter, mean float64) {
	var t, v float64
	n := float64(len(samples))
	hours := func(x sample) float64 { return x.at.Sub(samples[0].at).Hours() }
	for _, x := range samples {
		t += hours(x) / n
		v += of(x) / n
	}
	var up, down float64
	for _, x := range samples {
		up += (hours(x) - t) * (of(x) - v)
		down += (hours(x) - t) * (hours(x) - t)
	}
	slope = up / down
	var rest float64
	for _, x := range samples {
		off := of(x) - v - slope*(hours(x)-t)
		rest += off * off
	}
	return slope, math.Sqrt(rest / (n - 2) / down), v
}

func medianOf(samples []sample, of func(sample) float64) float64 {
	var all []float64
	for _, x := range samples {
		all = append(all, of(x))
	}
	slices.Sort(all)
	return all[len(all)/2]
}
