// Command vm runs the kernel-facing tests of this repository as root in virtual machines with Debian's stock kernels: a matrix of
// machines, as many at once as BAILEY_VM_AT_ONCE says. It is not for timing.
//
// Invariant: it succeeds only when every guest itself reported the end of every test; failed tests, a panic, a hang and a starved
// guest are told apart.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"bailey/test/vm/cache"
	"bailey/test/vm/initramfs"
	"bailey/test/vm/kernel"
	"bailey/test/vm/qemu"
)

type options struct {
	cache, machine, run     string
	tamper                  string // the page on attacks that is written
	limit, perTest, silence time.Duration
	memory                  int
	short, more, verbose    bool
}

func main() {
	var o options
	list := flag.Bool("list", false, "list the machines and end")
	flag.StringVar(&o.machine, "machine", "", "only these machines, separated by commas")
	flag.StringVar(&o.tamper, "tamper", "", "write what became of the attacks on the guard to this file: docs/tamper.md")
	flag.BoolVar(&o.short, "short", false, "only the machines that make test has time for")
	flag.BoolVar(&o.more, "more", false, "only the machines that make vm has time for with ALL=1")
	flag.StringVar(&o.run, "run", "", "only tests that match this expression")
	flag.StringVar(&o.cache, "cache", "", "where kernels are kept between runs; .cache/vm of the repository by default")
	flag.DurationVar(&o.limit, "limit", 20*time.Minute, "for each machine")
	flag.DurationVar(&o.perTest, "per-package", 15*time.Minute, "for each package, in the guest's time")
	flag.DurationVar(&o.silence, "silence", time.Minute, "without a sign of life after which a machine hangs")
	flag.IntVar(&o.memory, "memory", 1536, "of the guest, MiB")
	flag.BoolVar(&o.verbose, "v", false, "show every test")
	flag.Parse()
	if *list {
		for _, m := range matrix {
			fmt.Printf("%-12s the kernel of %s, lsm=%s\n", m.name, m.kernel, m.lsm)
			for _, s := range m.tests {
				fmt.Printf("  %s %s\n", s.packages, s.run)
			}
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
}

// run runs the machines asked for and reports all of them.
func run(ctx context.Context, o options, packages []string) error {
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.work) }()
	chosen := slices.DeleteFunc(slices.Clone(matrix), func(m machine) bool { return !o.chooses(m) })
	if len(chosen) == 0 {
		return fmt.Errorf("no machine is called %q: see -list", o.machine)
	}
	summary := make([]string, len(chosen))
	errs := make([]error, len(chosen))
	places := make(chan struct{}, qemu.AtOnce())
	var all sync.WaitGroup
	for _, source := range kernelsOf(chosen) { // the machines that need them wait for them, and say what went wrong
		all.Go(func() { _, _ = kernel.Get(ctx, b.o.cache, source) })
	}
	for i, m := range chosen {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			begin, result := time.Now(), "ok"
			if errs[i] = b.try(ctx, m, packages); errs[i] != nil {
				result = "FAILED"
				fmt.Printf("vm: %s: %v\nvm: all that it said is in %s/%s.report and .console\n", m.name, errs[i], b.o.cache, m.name)
			}
			summary[i] = fmt.Sprintf("vm: %-12s %-6s %5.0f s\n", m.name, result, time.Since(begin).Seconds())
		})
	}
	all.Wait()
	fmt.Print(strings.Join(summary, ""))
	var failed []string
	for i, m := range chosen {
		if errs[i] != nil {
			failed = append(failed, m.name)
		}
	}
	if len(failed) > 0 { // then the page would be wrong
		return fmt.Errorf("%d of %d machines failed: %s", len(failed), len(chosen), strings.Join(failed, ", "))
	}
	if o.tamper != "" {
		slices.SortFunc(b.attacks, func(a, b attackRun) int { return strings.Compare(a.version, b.version) })
		return writeTamper(o.tamper, b.attacks)
	}
	return nil
}

// kernelsOf names the kernels of machines, each once, in the order in which they are needed.
func kernelsOf(machines []machine) (out []kernel.Source) {
	for _, m := range machines {
		if !slices.Contains(out, m.kernel) {
			out = append(out, m.kernel)
		}
	}
	return out
}

// chooses reports whether a machine is to run: one that was named, or those of one verb.
func (o options) chooses(m machine) bool {
	if o.machine != "" {
		return slices.Contains(strings.Split(o.machine, ","), m.name)
	}
	return m.more == o.more && (m.always || !o.short)
}

// bench is what all machines share: the guest's init, and what was built for one and runs on all.
type bench struct {
	o          options
	work, init string

	mu          sync.Mutex // held while something is built, and for what is below
	accelerator string
	tests       map[string]testProgram // built
	attacks     []attackRun            // on the guard, by machine
	programs    string                 // the directory of what rigs run, once a test needs it
}

func newBench(ctx context.Context, o options) (*bench, error) {
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		return nil, errors.New("qemu-system-x86_64 is missing: run `sh tools/setup.sh test`")
	}
	var err error
	if o.cache == "" {
		if o.cache, err = cache.Dir(ctx); err != nil {
			return nil, err
		}
	}
	if o.cache, err = filepath.Abs(o.cache); err != nil {
		return nil, err
	}
	b := &bench{o: o, tests: map[string]testProgram{}}
	if b.work, err = os.MkdirTemp("", "bailey-vm-"); err != nil {
		return nil, err
	}
	b.init = filepath.Join(b.work, "init")
	return b, initramfs.Build(ctx, b.init, "bailey/test/vm/guest")
}

// try runs one machine, and once more where it was not given a fair chance.
func (b *bench) try(ctx context.Context, m machine, packages []string) error {
	c, err := b.prepare(ctx, m, packages)
	if err != nil {
		return err
	}
	err = b.boot(ctx, c, m)
	if qemu.Again(err) {
		fmt.Printf("vm: %v\nvm: once more\n", err)
		err = b.boot(ctx, c, m)
	}
	return err
}

// prepare builds a machine's tests and packs them into its initramfs.
func (b *bench) prepare(ctx context.Context, m machine, packages []string) (c qemu.Config, err error) {
	k, err := kernel.Get(ctx, b.o.cache, m.kernel)
	if err != nil {
		return c, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.accelerator == "" {
		if b.accelerator, err = qemu.Accelerator(ctx, b.o.cache, b.init, k); err != nil {
			return c, err
		}
	}
	tests, err := b.build(ctx, m.choose(packages, b.o.run))
	if err != nil {
		return c, err
	}
	dir := filepath.Join(b.work, m.name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return c, err
	}
	c = qemu.Config{Kernel: k, Initrd: filepath.Join(dir, "initramfs"), Dir: dir, LSM: m.lsm, Accelerator: b.accelerator, OneThread: m.one || qemu.AtOnce() > 1, Memory: b.o.memory, Silence: b.o.silence}
	if err := b.pack(ctx, c.Initrd, k, tests, m.skipped()); err != nil {
		return c, fmt.Errorf("make the initramfs: %w", err)
	}
	fmt.Printf("vm: %s: %d test programs in Linux %s (%s)\n", m.name, len(tests), k.Release, b.accelerator)
	return c, nil
}

// boot starts the machine, once there is a place for it, waits for its end, and judges the report.
func (b *bench) boot(ctx context.Context, c qemu.Config, m machine) (err error) {
	if c.Place, err = qemu.Take(ctx); err != nil {
		return err
	}
	defer c.Place.Leave()
	limited, cancel := context.WithTimeout(ctx, b.o.limit)
	defer cancel()
	vm, err := qemu.Start(limited, c)
	if err != nil {
		return err
	}
	end := vm.Wait()
	if b.o.verbose {
		fmt.Print(end.Report)
	}
	fmt.Printf("vm: %s:\n%s", m.name, results(end.Report))
	if err := b.keep(m.name, end); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted after %v", end.Wall.Round(time.Second))
	}
	if err := judge(end, m.lsm); err != nil {
		return err
	}
	return b.noteAttacks(c.Kernel.Release, end.Report)
}

// keep leaves all that a machine said where it can be read later.
func (b *bench) keep(name string, end qemu.End) error {
	return errors.Join(os.WriteFile(filepath.Join(b.o.cache, name+".console"), []byte(end.Console), 0o644),
		os.WriteFile(filepath.Join(b.o.cache, name+".report"), []byte(end.Report), 0o644))
}
