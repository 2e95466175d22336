package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"bailey/internal/roottest"
	"bailey/test/vm/kernel"
	"bailey/test/vm/qemu"
)

func TestJudgeSaysWhoIsToBlame(t *testing.T) {
	t.Parallel()
	const passed = "VM-LSM capability,bpf\nVM-RUN x\n--- PASS: TestA (0.0s)\nVM-OK x 1s\n"
	for name, tc := range map[string]struct {
		end  qemu.End
		lsm  string
		want string // of the error; empty for none
	}{
		"passes":          {end: qemu.End{Report: passed + "VM-EXIT 0\n"}, lsm: "yama,bpf"},
		"other_machine":   {end: qemu.End{Report: passed + "VM-EXIT 0\n"}, lsm: "yama", want: "another machine"},
		"test_fails":      {end: qemu.End{Report: "VM-RUN x\nit broke\nVM-FAIL x: exit status 1\nVM-EXIT 1\n"}, want: "it broke"},
		"panics":          {end: qemu.End{Report: passed, Err: qemu.ErrPanic}, want: "in trouble"},
		"panics_at_last":  {end: qemu.End{Report: passed + "VM-EXIT 0\n", Err: qemu.ErrPanic}, want: "in trouble"},
		"hangs":           {end: qemu.End{Report: passed, Err: qemu.ErrHang}, want: "hangs"},
		"starves":         {end: qemu.End{Report: passed, Err: qemu.ErrStarved}, want: "starved"},
		"takes_too_long":  {end: qemu.End{Report: passed, Err: context.DeadlineExceeded}, want: "alive"},
		"ends_in_silence": {end: qemu.End{Report: passed}, want: "without a report"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := judge(tc.end, tc.lsm)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("judge = %v, want %q", err, tc.want)
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

func TestFailuresAreThoseOfTheTestsThatFailed(t *testing.T) {
	t.Parallel()
	got := failures(`VM-RUN p
=== RUN   TestA
=== PAUSE TestA
=== RUN   TestB
    b_test.go:3: fine
--- PASS: TestB (0.00s)
=== CONT  TestA
=== RUN   TestA/x
    a_test.go:5: broken
--- FAIL: TestA (0.00s)
    --- FAIL: TestA/x (0.00s)
FAIL
VM-FAIL p: exit status 1 after 1s
VM-RUN q
    q_test.go:3: fine
VM-OK q 1s
`)
	const want = "--- FAIL: TestA\n\n--- FAIL: TestA/x\n    a_test.go:5: broken\nFAIL\nVM-FAIL p: exit status 1 after 1s\n"
	if !strings.HasPrefix(got, want) || strings.Contains(got, "fine") {
		t.Errorf("failures = %q, want %q", got, want)
	}
}

// TestDoomedMachines: a machine whose kernel panics, one that hangs, and one whose tests do not end are each named as such in time.
func TestDoomedMachines(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		roottest.Unavailable(t, "qemu-system-x86_64 is not installed")
	}
	// On a quiet host each is told of within 12 s. The rest of the limit is patience with one that does something else meanwhile.
	b, err := newBench(t.Context(), options{limit: 90 * time.Second, perTest: 8 * time.Second, silence: 8 * time.Second, memory: 512})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(b.work) }()
	m := machine{name: "doomed", kernel: kernel.Debian12, lsm: lsmDebian}
	if _, err := kernel.Get(t.Context(), b.o.cache, m.kernel); err != nil {
		roottest.Unavailable(t, err.Error())
	}
	for _, tc := range []struct {
		test string
		is   error
		says []string
	}{
		{"TestPanic", qemu.ErrPanic, []string{"Kernel panic", "sysrq", "VM-RUN"}},
		{"TestHang", qemu.ErrHang, []string{"no sign of life", "NMI", "VM-RUN"}},
		{"TestSleep", nil, []string{"tests failed", "VM-FAIL", "SIGQUIT"}},
	} {
		t.Run(tc.test, func(t *testing.T) {
			b.o.run = "^" + tc.test + "$"
			err := b.try(t.Context(), m, []string{"bailey/test/vm/doomed"})
			t.Log(err)
			if err == nil || tc.is != nil && !errors.Is(err, tc.is) {
				t.Fatalf("the machine ended with %v, want %v", err, tc.is)
			}
			for _, s := range tc.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("nothing says %q", s)
				}
			}
		})
	}
}
