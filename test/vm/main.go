// Command vm runs the kernel-facing tests of this repository as root in a stock Debian kernel under QEMU, without KVM. It
// emulates one machine at a time; it is not for timing.
//
// Invariant: it succeeds only when the guest itself reported the end of every test; a panic, a hang and a starved guest
// are told apart.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// packages are the tests that run in the VM when none are named: what touches the kernel.
var packages = []string{"./agent/sensor/...", "./agent/product/...", "./internal/boottime"}

type options struct {
	cache, run     string
	limit, perTest time.Duration
	memory         int
	verbose        bool
}

func main() {
	var o options
	flag.StringVar(&o.cache, "cache", ".cache/vm", "where the kernel is kept between runs")
	flag.StringVar(&o.run, "run", "", "only tests that match this expression")
	flag.DurationVar(&o.limit, "limit", 10*time.Minute, "for the whole machine")
	flag.DurationVar(&o.perTest, "per-package", 4*time.Minute, "for each package, in the guest's time")
	flag.IntVar(&o.memory, "memory", 1536, "of the guest, MiB")
	flag.BoolVar(&o.verbose, "v", false, "show every test")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, patterns []string) error {
	if len(patterns) == 0 {
		patterns = packages
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		return errors.New("qemu-system-x86_64 is missing: run `make setup`")
	}
	if err := os.MkdirAll(o.cache, 0o755); err != nil {
		return fmt.Errorf("make the cache: %w", err)
	}
	lock, err := os.Create(filepath.Join(os.TempDir(), "bailey-vm.lock"))
	if err != nil {
		return fmt.Errorf("make the lock: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil { // two at once starve each other
		return fmt.Errorf("wait for the other machine to end: %w", err)
	}
	k, err := fetchKernel(ctx, o.cache)
	if err != nil {
		return fmt.Errorf("get the kernel: %w", err)
	}
	work, err := os.MkdirTemp("", "bailey-vm-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	tests, err := buildTests(ctx, work, patterns)
	if err != nil {
		return fmt.Errorf("build the tests: %w", err)
	}
	if err := writeInitramfs(ctx, work, k, tests, o); err != nil {
		return fmt.Errorf("make the initramfs: %w", err)
	}
	fmt.Printf("vm: %d test programs in Linux %s\n", len(tests), k.release)
	begin := time.Now()
	err = boot(ctx, work, k, o)
	if errors.Is(err, errStarved) {
		fmt.Println("vm: the guest got too little processor time; once more")
		err = boot(ctx, work, k, o)
	}
	if err != nil {
		return err
	}
	fmt.Printf("vm: all passed in Linux %s in %v\n", k.release, time.Since(begin).Round(100*time.Millisecond))
	return nil
}

// testProgram is one package's test binary.
type testProgram struct {
	pkg, dir, binary string
	helpers          map[string]string // programs in testdata, by their place below dir: the guest has no go command
}

// buildTests compiles the test binary of every package that has tests.
func buildTests(ctx context.Context, work string, patterns []string) ([]testProgram, error) {
	list := exec.CommandContext(ctx, "go", append([]string{"list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}"}, patterns...)...)
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("list packages: %w", err)
	}
	var tests []testProgram
	for line := range strings.Lines(string(out)) {
		pkg, dir, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		t := testProgram{pkg: pkg, dir: dir, binary: filepath.Join(work, strings.ReplaceAll(pkg, "/", "_")+".test")}
		if err := goBuild(ctx, "test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", t.binary, pkg); err != nil {
			return nil, err
		}
		if t.helpers, err = buildHelpers(ctx, t); err != nil {
			return nil, err
		}
		tests = append(tests, t)
	}
	if len(tests) == 0 {
		return nil, fmt.Errorf("no package of %v has tests", patterns)
	}
	return tests, nil
}

// buildHelpers compiles the programs testdata/NAME/main.go to testdata/NAME/NAME.
func buildHelpers(ctx context.Context, t testProgram) (map[string]string, error) {
	sources, err := filepath.Glob(filepath.Join(t.dir, "testdata/*/main.go"))
	if err != nil {
		return nil, err
	}
	helpers := map[string]string{}
	for _, s := range sources {
		if text, err := os.ReadFile(s); err != nil {
			return nil, err
		} else if !bytes.Contains(text, []byte("\npackage main\n")) {
			continue
		}
		name := filepath.Base(filepath.Dir(s))
		binary := t.binary + "." + name
		if err := goBuild(ctx, "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, filepath.Dir(s)); err != nil {
			return nil, err
		}
		helpers[filepath.Join("testdata", name, name)] = binary
	}
	return helpers, nil
}

// goBuild runs the go command for a static program for the guest.
func goBuild(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
