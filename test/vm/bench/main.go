// Command bench measures what Bailey costs where figures repeat: in a virtual machine with Debian's kernel whose one processor's time is what
// it executes. All lanes are measured in one boot; a run is compared with the committed one. It says nothing about real processors,
// their caches, or several of them: that is test/bench.
//
// Invariant: figures are compared with figures of the same run, or of another run of the same machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"bailey/test/vm/bench/figure"
	"bailey/test/vm/cache"
	"bailey/test/vm/kernel"
	"bailey/test/vm/qemu"
)

// allLanes are the lanes in their order: none_again shows the noise, and nothing comes after audit_exec, which never ends as a whole.
const allLanes = "none,agent_0,agent_1,agent_1_cached,agent_8,agent_8_cached,guard,rules,guard_rules,fapolicyd,none_again,audit_exec,audit_open"

// options are the command line.
type options struct {
	lanes, out, cache string
	batches, builds   int
	limit             time.Duration
	check             bool
}

func main() {
	var o options
	flag.StringVar(&o.lanes, "lanes", allLanes, "the lanes that are measured, in this order; none always is, first")
	flag.StringVar(&o.out, "out", "test/vm/bench/results", "where the table and the JSON of the last run with all lanes are, and go")
	flag.StringVar(&o.cache, "cache", "", "where kernels are kept between runs; .cache/vm of the repository by default")
	flag.IntVar(&o.batches, "batches", 11, "how often each operation is measured")
	flag.IntVar(&o.builds, "builds", 3, "how often go build is measured, in the lanes of which something is promised; 0: never")
	flag.DurationVar(&o.limit, "limit", time.Hour, "for the whole machine")
	flag.BoolVar(&o.check, "check", false, "fail when a figure got worse or is above its limit; leave the results that are there")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures, prints the table and what is different from the last run, and stores it.
func run(ctx context.Context, o options) error {
	before, err := readResults(o.out)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	r, err := measure(ctx, o)
	if err != nil {
		return err
	}
	table := r.table()
	fmt.Print(table)
	worse, missed := r.worse(before), r.missed()
	for _, w := range worse {
		fmt.Println("worse than the committed run:", w)
	}
	for _, m := range missed {
		fmt.Println("above its limit:", m)
	}
	switch {
	case o.check && len(worse)+len(missed) > 0:
		return fmt.Errorf("%d figures got worse, %d are above their limits", len(worse), len(missed))
	case o.check || o.lanes != allLanes: // part of the figures does not take the place of all of them
		return nil
	}
	return r.write(o.out, table)
}

// measure boots the machine and reads its report.
func measure(ctx context.Context, o options) (*results, error) {
	o.lanes = "none," + strings.TrimPrefix(o.lanes, "none,")
	if o.cache == "" {
		var err error
		if o.cache, err = cache.Dir(ctx); err != nil {
			return nil, err
		}
	}
	var err error
	if o.cache, err = filepath.Abs(o.cache); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp("", "bailey-vm-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(work) }()
	k, err := kernel.Get(ctx, o.cache, kernel.Debian12)
	if err != nil {
		return nil, err
	}
	p := &pack{o: o, dir: work, kernel: k}
	if err := p.make(ctx); err != nil {
		return nil, fmt.Errorf("make the initramfs: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	begin := time.Now()
	vm, err := qemu.Start(limited, qemu.Config{
		Kernel: k, Initrd: p.initrd(), Dir: work, LSM: "landlock,lockdown,yama,integrity,apparmor,bpf", Accelerator: "tcg", Deterministic: true,
		Memory: 2048, Silence: 3 * time.Minute,
	})
	if err != nil {
		return nil, err
	}
	follow(vm, filepath.Join(work, "report"))
	end := vm.Wait()
	if end.Err == nil && !strings.Contains(end.Report, "\nVM-EXIT 0\n") {
		end.Err = errors.New("the guest did not measure everything")
	}
	if end.Err != nil {
		return nil, fmt.Errorf("the machine failed after %v: %w\nconsole:\n%s\nreport:\n%s", time.Since(begin).Round(time.Second), end.Err,
			qemu.Tail(end.Console, 40), qemu.Tail(end.Report, 40))
	}
	r, err := parse(end.Report)
	if err != nil {
		return nil, err
	}
	r.Kernel, r.Go, r.Fapolicyd, r.Seconds = k.Release, runtime.Version(), p.fapolicyd, time.Since(begin).Round(time.Second).Seconds()
	return r, nil
}

// follow says what was measured, until the machine ends. It reads the file and not the serial port: whoever listens there has the guest wait.
func follow(vm *qemu.Machine, report string) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	begin, said := time.Now(), 0
	for {
		select {
		case <-vm.Ended():
			return
		case <-tick.C:
		}
		text, _ := os.ReadFile(report)
		for _, m := range measured.FindAllSubmatch(text, -1)[said:] {
			fmt.Fprintf(os.Stderr, "bench: measured %s (%v)\n", m[1], time.Since(begin).Round(time.Second))
			said++
		}
	}
}

var measured = regexp.MustCompile(`(?m)^` + figure.Line + `\{"name":"([^"]*)".*\}\r?$`)
