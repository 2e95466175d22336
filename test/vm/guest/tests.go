package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// runAll runs every line "DIR PROGRAM SECONDS ARGS..." of the list and returns 0 when all pass.
func runAll(report io.Writer) int {
	list, err := os.ReadFile("/tests/list")
	if err != nil {
		fmt.Fprintln(report, err)
		return 1
	}
	code := 0
	for line := range strings.Lines(string(list)) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		limit, err := time.ParseDuration(f[2])
		if err != nil {
			fmt.Fprintln(report, err)
			return 1
		}
		if !runOne(report, f[0], f[1], limit, f[3:]) {
			code = 1
		}
	}
	return code
}

func runOne(report io.Writer, dir, program string, limit time.Duration, args []string) bool {
	begin := time.Now()
	fmt.Fprintf(report, "VM-RUN %s\n", program)
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, report, report
	cmd.Env = []string{"PATH=/bin", "HOME=/tmp", "TMPDIR=/tmp", "BAILEY_TEST_VM=1", "BAILEY_PROGRAMS=/tests/programs"}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(report, "VM-FAIL %s: %v\n", program, err)
		return false
	}
	timer := time.AfterFunc(limit, func() {
		_ = cmd.Process.Signal(syscall.SIGQUIT) // the test says where it hangs
		time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
	})
	defer timer.Stop()
	if err := cmd.Wait(); err != nil {
		fmt.Fprintf(report, "VM-FAIL %s: %v after %v\n", program, err, time.Since(begin).Round(time.Millisecond))
		return false
	}
	fmt.Fprintf(report, "VM-OK %s %v\n", program, time.Since(begin).Round(time.Millisecond))
	return true
}
