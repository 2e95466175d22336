package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"bailey/test/vm/qemu"
)

var (
	exitLine = regexp.MustCompile(`(?m)^VM-EXIT (\d+)$`)
	lsmLine  = regexp.MustCompile(`(?m)^VM-LSM (.*)$`)
)

// judge turns what a machine left into an error that says who is to blame. lsm is what it was to be booted with.
func judge(end qemu.End, lsm string) error {
	exit := exitLine.FindStringSubmatch(end.Report)
	switch {
	case errors.Is(end.Err, context.DeadlineExceeded):
		return fmt.Errorf("the guest is alive and has not ended after %v; its report:\n%s", end.Wall.Round(time.Second), qemu.Tail(end.Report, 60))
	case qemu.Again(end.Err):
		return end.Err
	case end.Err != nil:
		return fmt.Errorf("%w\nreport:\n%s", end.Err, qemu.Tail(end.Report, 40))
	case exit == nil:
		return fmt.Errorf("the guest ended without a report\nconsole:\n%s\nreport:\n%s", qemu.Tail(end.Console, 40), qemu.Tail(end.Report, 40))
	case exit[1] != "0":
		return fmt.Errorf("tests failed in the guest:\n%s", failures(end.Report))
	}
	if m := lsmLine.FindStringSubmatch(end.Report); m == nil || strings.Contains(m[1], "bpf") != strings.Contains(lsm, "bpf") {
		return fmt.Errorf("the guest has the security modules %v and was booted with lsm=%s: it is another machine than the table says", m, lsm)
	}
	return nil
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

var (
	testStarts = regexp.MustCompile(`^=== (?:RUN|NAME|CONT|PAUSE) +(\S+)`)
	testEnds   = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) `)
)

// failures returns what the tests that failed said, and the end of the output where a test program failed as a whole.
func failures(report string) string {
	var b strings.Builder
	for _, part := range strings.Split(report, "VM-RUN ") {
		if !strings.Contains(part, "VM-FAIL ") {
			continue
		}
		said, failed := bySpeaker(part)
		for _, name := range failed {
			fmt.Fprintf(&b, "--- FAIL: %s\n%s\n", name, qemu.Tail(said[name], 60))
		}
		if len(failed) == 0 || strings.Contains(part, "\npanic: ") {
			b.WriteString(qemu.Tail(part, 200) + "\n")
		}
	}
	return b.String()
}

// bySpeaker tells the output of tests that ran beside one another apart.
func bySpeaker(output string) (said map[string]string, failed []string) {
	said = map[string]string{}
	speaker := ""
	for line := range strings.Lines(output) {
		if m := testStarts.FindStringSubmatch(line); m != nil {
			speaker = m[1]
		} else if m := testEnds.FindStringSubmatch(line); m == nil {
			said[speaker] += line
		} else if m[1] == "FAIL" {
			failed = append(failed, m[2])
		}
	}
	return said, failed
}
