// Package leakcheck fails a test, or a whole test binary, that leaves something behind: goroutines, descriptors, child
// processes, mounts, cgroups, BPF pins or temporary files. It is not a cleaner: it names what was left and removes nothing
// but the temporary directory that it made itself.
//
// Invariant: what this test process owns (goroutines, descriptors, processes, files and mounts below its temporary
// directory) is always checked; what belongs to the machine (cgroups, pins and other mounts with "bailey" in their name) is
// checked by the last of the test binaries that run at the same time, because only then nobody else can own it.
package leakcheck

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long things that end asynchronously (a reaped process, a lazy unmount) may take to disappear.
const patience = 3 * time.Second

// markName is the environment variable that every process started by a test binary inherits, so that orphans are found too.
const markName = "BAILEY_LEAKCHECK"

// Suite is what Main runs: a *testing.M, or one with something around it.
type Suite interface{ Run() int }

// Main runs m's tests and exits: with their code, or with 1 and a report on stderr when they left something behind. Call
// it from TestMain as the only statement. It points TMPDIR to a directory of this test binary.
func Main(m Suite, ignore ...goleak.Option) {
	code, report := run(m.Run, patience, ignore...)
	if report != "" {
		fmt.Fprint(os.Stderr, report)
		if code == 0 {
			code = 1
		}
	}
	os.Exit(code)
}

// run is Main without the exit.
func run(tests func() int, patience time.Duration, ignore ...goleak.Option) (int, string) {
	warmUp()
	dir, err := privateTemp()
	if err != nil {
		return 1, fmt.Sprintf("leakcheck: make a temporary directory: %v\n", err)
	}
	machine := joinMachine()
	if err := os.Setenv(markName, strconv.Itoa(os.Getpid())); err != nil {
		return 1, fmt.Sprintf("leakcheck: %v\n", err)
	}
	mark := markName + "=" + strconv.Itoa(os.Getpid())
	before := takeProcess(dir, mark)
	ignore = append(ignore, goleak.IgnoreCurrent())

	code := tests()

	lost := settle(patience, func() []string { return takeProcess(dir, mark).since(before) })
	lost = append(lost, machine.leave(patience)...)
	if err := goleak.Find(ignore...); err != nil {
		lost = append(lost, "goroutine: "+err.Error())
	}
	if err := os.RemoveAll(dir); err != nil {
		lost = append(lost, fmt.Sprintf("temporary directory %s cannot be removed: %v", dir, err))
	}
	return code, format(lost)
}

// Check fails t when something of this process that was not there at the call is still there when t ends. Not for
// parallel tests: what their siblings hold is theirs.
func Check(t testing.TB, ignore ...goleak.Option) {
	t.Helper()
	warmUp()
	dir, mark := os.TempDir(), markName+"="+os.Getenv(markName)
	before := takeProcess("", mark)
	ignore = append(ignore, goleak.IgnoreCurrent())
	mounts := mountsBelow(dir)
	t.Cleanup(func() {
		lost := settle(patience, func() []string {
			return append(takeProcess("", mark).since(before), difference(mounts, mountsBelow(dir), "mount")...)
		})
		if err := goleak.Find(ignore...); err != nil {
			lost = append(lost, "goroutine: "+err.Error())
		}
		if report := format(lost); report != "" {
			t.Error(report)
		}
	})
}

// settle asks again until nothing is left or patience ends.
func settle(patience time.Duration, left func() []string) []string {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) { //nolint:forbidigo // the kernel and the runtime do not say when they have cleaned up
		lost := left()
		if len(lost) == 0 || time.Now().After(end) {
			return lost
		}
	}
}

func format(lost []string) string {
	if len(lost) == 0 {
		return ""
	}
	return fmt.Sprintf("leakcheck: %d left behind:\n  %s\n", len(lost), strings.Join(lost, "\n  "))
}

// warmUp opens what the Go runtime opens once and keeps (the poller's descriptors), so that no test is blamed for it.
func warmUp() {
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	r.Close()
	w.Close()
}

// privateTemp makes this binary's temporary directory. Its name is short because unix socket paths below it are limited to
// 108 bytes, and others may traverse it because contained products run as other users.
func privateTemp() (string, error) {
	dir := fmt.Sprintf("%s/bt-%d", os.TempDir(), os.Getpid())
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	return dir, os.Setenv("TMPDIR", dir)
}
