// Command bench measures what questions cost the machine: the same work with no agent, with the agent and its products, and
// with fapolicyd, interleaved in one run on one filesystem that belongs to the bench. It compares and does not judge
// correctness.
//
// Invariant: nothing that answers permission events ever watches a mount that the host can see. The bench lives in a mount
// namespace of its own, works on a loop image of a filesystem type that nothing else uses, and a dead-man process kills
// whatever answers when the bench stops reporting.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	bailey, products, out, cache string
	lanes                        string
	rounds, fine, builds         int
	files, execs                 int
	build, buildAlone, inside    bool
	deadman                      int
}

func parseOptions() options {
	var o options
	flag.StringVar(&o.bailey, "bailey", "dist/bailey", "the agent; its lanes are left out when it does not exist")
	flag.StringVar(&o.products, "products", "dist/products", "product folders")
	flag.StringVar(&o.out, "out", "test/bench/results", "where the table and the JSON go")
	flag.StringVar(&o.cache, "cache", ".cache/bench-data", "where the image and fapolicyd are kept between runs")
	flag.StringVar(&o.lanes, "lanes", "", "only these lanes, separated by commas; none is always measured")
	flag.IntVar(&o.rounds, "rounds", 5, "how often each lane is measured")
	flag.IntVar(&o.fine, "fine", 30, "further rounds of the lanes that are promised to cost next to nothing, without go build")
	flag.IntVar(&o.builds, "builds", 8, "further rounds of go build alone, in the lanes that are promised to cost little there")
	flag.IntVar(&o.files, "files", 20000, "files in the open loop")
	flag.IntVar(&o.execs, "execs", 2000, "executions in the exec loop")
	flag.BoolVar(&o.build, "build", true, "measure go build")
	flag.BoolVar(&o.inside, "inside", false, "internal: already in the private mount namespace")
	flag.IntVar(&o.deadman, "deadman", 0, "internal: kill this process when standard input is silent")
	flag.Parse()
	return o
}

func main() {
	o := parseOptions()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case o.deadman != 0:
		watchPulse(os.Stdin, o.deadman)
	case o.inside:
		runtime.LockOSThread() // children die with this thread
		err = run(ctx, o, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	default:
		err = enter(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// enter runs this program again in a mount namespace of its own.
func enter(o options) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("needs root: it mounts a filesystem of its own and runs programs that answer fanotify events")
	}
	args := []string{"-inside"}
	flag.Visit(func(f *flag.Flag) { args = append(args, "-"+f.Name+"="+f.Value.String()) })
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	ignore := make(chan os.Signal, 1)
	signal.Notify(ignore, os.Interrupt, syscall.SIGTERM) // the child gets the terminal's signal too and cleans up
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("enter a mount namespace: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-ignore:
			_ = cmd.Process.Signal(s)
		case err := <-done:
			return err
		}
	}
}

// run prepares the world, measures every lane in every round, and writes the results.
func run(ctx context.Context, o options, log *slog.Logger) error {
	w, err := newWorld(ctx, o, log)
	if err != nil {
		return err
	}
	defer w.close()
	lanes, err := chooseLanes(ctx, w, o)
	if err != nil {
		return err
	}
	res := newResults(w, o, lanes)
	if err := measureRounds(ctx, w, lanes, o, o.rounds, res.add, log); err != nil {
		return err
	}
	measureBuild := o.build
	o.build = false
	if err := measureRounds(ctx, w, named(lanes, "none", "agent_0", "agent_allowlist"), o, o.fine, res.addFine, log); err != nil {
		return err
	}
	if measureBuild {
		o.build, o.buildAlone = true, true
		lanes = named(lanes, "none", "agent_0", "agent_allowlist", "agent_1_cached", "fapolicyd_allow_all")
		if err := measureRounds(ctx, w, lanes, o, o.builds, res.addBuild, log); err != nil {
			return err
		}
	}
	return res.write(o.out)
}

// measureRounds measures each lane once a round, in another order each round: no lane is always first.
func measureRounds(ctx context.Context, w *world, lanes []lane, o options, rounds int, add func(lane string, s sample), log *slog.Logger) error {
	begin := time.Now()
	for round := range rounds {
		for i := range lanes {
			l := lanes[(i+round)%len(lanes)]
			sample, err := measure(ctx, w, l, o, round)
			if err != nil {
				return fmt.Errorf("lane %s: %w", l.name(), err)
			}
			add(l.name(), sample)
			log.Info("measured", "round", round+1, "of", rounds, "lane", l.name(), "sample", sample.String(), "since_start", time.Since(begin).Round(time.Second))
		}
	}
	return nil
}

// named are the lanes of these names: those whose promise is a few percent. Fewer rounds than some dozens, and of go build
// some, cannot tell that from noise.
func named(lanes []lane, names ...string) []lane {
	var out []lane
	for _, l := range lanes {
		if slices.Contains(names, l.name()) {
			out = append(out, l)
		}
	}
	return out
}

// measure starts a lane, does all the work in it, and stops it.
func measure(ctx context.Context, w *world, l lane, o options, round int) (sample, error) {
	if err := w.settle(ctx); err != nil {
		return nil, err
	}
	watched, err := l.start(ctx)
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	pulse, err := startDeadman(watched)
	if err != nil {
		l.stop()
		return nil, fmt.Errorf("start the dead-man process: %w", err)
	}
	s, err := w.work(ctx, o, strconv.Itoa(round)+l.name(), pulse.beat)
	if note := l.stop(); note != "" && err == nil {
		s["note:"+note] = 0
	}
	killed := pulse.stop()
	if err == nil && killed {
		err = fmt.Errorf("the dead-man process had to kill it: it stopped answering")
	}
	return s, err
}

// chooseLanes returns the lanes that this machine can run, none first.
func chooseLanes(ctx context.Context, w *world, o options) ([]lane, error) {
	all, err := allLanes(ctx, w, o)
	if err != nil {
		return nil, err
	}
	if o.lanes == "" {
		return all, nil
	}
	want := map[string]bool{"none": true}
	for _, n := range strings.Split(o.lanes, ",") {
		want[n] = true
	}
	var out []lane
	for _, l := range all {
		if want[l.name()] {
			out = append(out, l)
			delete(want, l.name())
		}
	}
	for n := range want {
		return nil, fmt.Errorf("lane %q does not exist or cannot run here", n)
	}
	return out, nil
}

// absolute makes the paths of o absolute, because the work is done elsewhere.
func (o *options) absolute() error {
	for _, p := range []*string{&o.bailey, &o.products, &o.out, &o.cache} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("find %s: %w", *p, err)
		}
		*p = abs
	}
	return nil
}
