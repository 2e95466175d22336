package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// errStarved says that the guest did not get enough processor time for a verdict about it.
var errStarved = errors.New("the guest was starved")

// starved is the share of one processor below which a guest that ran into its limit is not to blame. A guest that hangs
// with idle processors looks the same: the second run tells.
const starved = 0.25

// boot starts the machine, waits for its end, and judges what it left on its serial ports.
func boot(ctx context.Context, work string, k *kernel, o options) error {
	console, report := filepath.Join(work, "console"), filepath.Join(work, "report")
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "2", "-m", strconv.Itoa(o.memory),
		"-kernel", k.vmlinux, "-initrd", filepath.Join(work, "initramfs"),
		"-append", "console=ttyS0 panic=-1 quiet lsm=landlock,lockdown,yama,integrity,apparmor,bpf mitigations=off no_timer_check tsc=reliable lpj=4000000 cryptomgr.notests",
		"-device", "isa-debug-exit,iobase=0x501,iosize=2", "-serial", "file:"+console, "-serial", "file:"+report)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	wall := time.Since(begin)
	if cmd.ProcessState == nil {
		return fmt.Errorf("start qemu: %w", err)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("interrupted after %v", wall.Round(time.Second))
	}
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if o.verbose {
		fmt.Print(read(report))
	}
	return judge(read(console), read(report), string(out), ctx.Err() != nil, cpu.Seconds()/wall.Seconds(), wall)
}

func read(file string) string {
	text, _ := os.ReadFile(file)
	return strings.ReplaceAll(string(text), "\r", "")
}

var (
	exitLine  = regexp.MustCompile(`(?m)^VM-EXIT (\d+)$`)
	panicLine = regexp.MustCompile(`(?m)^.*(Kernel panic|BUG:|Oops:|blocked for more than|soft lockup).*$`)
)

// judge turns what the machine left into an error that says who is to blame. share is qemu's use of one processor.
func judge(console, report, qemu string, timedOut bool, share float64, wall time.Duration) error {
	fmt.Print(results(report))
	trouble := panicLine.FindString(console)
	end := exitLine.FindStringSubmatch(report)
	switch {
	case trouble != "":
		return fmt.Errorf("the guest's kernel is in trouble: %s\n%s", strings.TrimSpace(trouble), tail(console, 60))
	case end != nil && end[1] == "0":
		return nil
	case end != nil:
		return fmt.Errorf("tests failed in the guest:\n%s", failures(report))
	case timedOut && share < starved:
		return fmt.Errorf("%w: %.2f of a processor in %v", errStarved, share, wall.Round(time.Second))
	case timedOut:
		return fmt.Errorf("the guest hangs: no end after %v\nconsole:\n%s\nreport:\n%s", wall.Round(time.Second), tail(console, 40), tail(report, 60))
	}
	return fmt.Errorf("the guest ended without a report\nqemu: %s\nconsole:\n%s\nreport:\n%s", qemu, tail(console, 40), tail(report, 40))
}

// results returns a line for each test program, with what it skipped and why.
func results(report string) string {
	var b strings.Builder
	for _, part := range strings.Split(report, "VM-RUN ") {
		passed := strings.Count(part, "\n--- PASS:")
		skipped := len(skippedTest.FindAllString(part, -1))
		for line := range strings.Lines(part) {
			if strings.HasPrefix(line, "VM-OK ") || strings.HasPrefix(line, "VM-FAIL ") {
				fmt.Fprintf(&b, "  %s (%d passed, %d skipped)\n", strings.TrimSpace(strings.TrimPrefix(line, "VM-")), passed, skipped)
			}
		}
		reasons := map[string]string{}
		for _, m := range firstWords.FindAllStringSubmatch(part, -1) {
			reasons[m[1]] = m[2]
		}
		for _, m := range skippedTest.FindAllStringSubmatch(part, -1) {
			fmt.Fprintf(&b, "    skipped %s: %s\n", m[1], reasons[m[1]])
		}
	}
	return b.String()
}

// With -test.v a test's words come before its result, a subtest's long before.
var (
	firstWords  = regexp.MustCompile(`(?m)^=== RUN   (\S+)\n    \S+\.go:\d+: (.*)$`)
	skippedTest = regexp.MustCompile(`(?m)^ *--- SKIP: (\S+) `)
)

// failures returns the output of the test programs that failed.
func failures(report string) string {
	var b strings.Builder
	for _, part := range strings.Split(report, "VM-RUN ") {
		if strings.Contains(part, "VM-FAIL ") {
			b.WriteString(tail(part, 200) + "\n")
		}
	}
	return b.String()
}

func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
