package main

import (
	"bufio"
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"bailey/internal/roottest"
)

func TestJudgeSaysWhoIsToBlame(t *testing.T) {
	t.Parallel()
	const passed = "VM-RUN x\n--- PASS: TestA (0.0s)\nVM-OK x 1s\n"
	for name, tc := range map[string]struct {
		console, report string
		timedOut        bool
		share           float64
		want            string // of the error; empty for none
		starved         bool
	}{
		"passes":             {report: passed + "VM-EXIT 0\n"},
		"test_fails":         {report: "VM-RUN x\nit broke\nVM-FAIL x: exit status 1\nVM-EXIT 1\n", want: "it broke"},
		"panics":             {console: "[ 1.0] Kernel panic - not syncing: oops\n", report: passed, want: "Kernel panic"},
		"panics_after_tests": {console: "[ 9.0] BUG: unable to handle page fault\n", report: passed + "VM-EXIT 0\n", want: "BUG"},
		"hangs":              {report: "VM-RUN x\n", timedOut: true, share: 0.9, want: "hangs"},
		"starves":            {report: "VM-RUN x\n", timedOut: true, share: 0.1, want: "starved", starved: true},
		"ends_in_silence":    {report: passed, want: "without a report"},
		"never_starts":       {want: "without a report"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := judge(tc.console, tc.report, "", tc.timedOut, tc.share, time.Minute)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("judge = %v, want %q", err, tc.want)
			}
			if errors.Is(err, errStarved) != tc.starved {
				t.Errorf("starved = %v, want %v: %v", !tc.starved, tc.starved, err)
			}
		})
	}
}

func TestResultsNameWhatWasSkipped(t *testing.T) {
	t.Parallel()
	got := results(`VM-RUN p
=== RUN   TestA
    a_test.go:3: no rpm here
--- SKIP: TestA (0.00s)
=== RUN   TestB
=== RUN   TestB/ext4
    b_test.go:21: needs ext4
--- PASS: TestB (1.38s)
    --- SKIP: TestB/ext4 (0.01s)
VM-OK p 1s
`)
	const want = "  OK p 1s (1 passed, 2 skipped)\n    skipped TestA: no rpm here\n    skipped TestB/ext4: needs ext4\n"
	if got != want {
		t.Errorf("results = %q, want %q", got, want)
	}
}

// The archive must be what everybody else calls one.
func TestArchiveIsRead(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("cpio"); err != nil {
		roottest.Unavailable(t, "cpio is not installed")
	}
	var b bytes.Buffer
	a := &archive{w: bufio.NewWriter(&b), dirs: map[string]bool{}}
	for _, step := range []error{a.text("a/b/c", "content"), a.link("a/l", "b/c"), a.file("a/odd", "vm_test.go"), a.entry("TRAILER!!!", 0, 0, nil), a.w.Flush()} {
		if step != nil {
			t.Fatal(step)
		}
	}
	cmd := exec.Command("cpio", "-it", "--quiet")
	cmd.Stdin = &b
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	if got := strings.Join(strings.Fields(string(out)), " "); got != "a a/b a/b/c a/l a/odd" {
		t.Errorf("cpio lists %q", got)
	}
}
