package process_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/agent/sensor/process"
	"bailey/internal/roottest"
)

const insideVariable = "BAILEY_PROCESS_TEST_INSIDE"

// TestTreeIsRightUnderPidReuse runs TestInsideSmallPIDNamespace in a pid namespace of its own, where pids are few.
func TestTreeIsRightUnderPidReuse(t *testing.T) {
	roottest.Require(t, needs+" and makes a pid namespace")
	cmd := helper("pidns", "-test.run=^TestInsideSmallPIDNamespace$", "-test.v")
	cmd.Env = append(cmd.Env, insideVariable+"=1")
	outside, err := os.Open("/proc/sys/kernel/pid_max")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	cmd.ExtraFiles = []*os.File{outside}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("inside:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "--- PASS: TestInsideSmallPIDNamespace") {
		t.Fatal("the test inside did not run")
	}
}

// lastPID makes the next pid follow p.
func lastPID(t *testing.T, p int) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(p)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestInsideSmallPIDNamespace(t *testing.T) {
	if os.Getenv(insideVariable) == "" {
		t.Skip("part of TestTreeIsRightUnderPidReuse")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	// pid_max belongs to the pid namespace since Linux 6.14; elsewhere the counter is set back instead.
	before, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err != nil {
		t.Fatal(err)
	}
	small := smallPIDMax(t, string(before))
	w := start(t, process.Config{})
	t.Run("every_program_is_its_own", func(t *testing.T) { reuse(t, w, small) })
	t.Run("parents_are_the_forkers", func(t *testing.T) { parents(t, w) })
	t.Run("flags_end_with_their_process", func(t *testing.T) { flags(t, w) })
}

// smallPIDMax makes pid_max small if that touches this namespace alone, and reports whether it did.
func smallPIDMax(t *testing.T, before string) bool {
	t.Helper()
	// Whether it is one per namespace is only seen by trying a harmless value and looking from outside.
	now, err := strconv.Atoi(strings.TrimSpace(before))
	if err != nil {
		t.Fatal(err)
	}
	probe := strconv.Itoa(now - 1)
	if err := os.WriteFile("/proc/sys/kernel/pid_max", []byte(probe), 0o644); err != nil {
		t.Logf("pid_max cannot be written here (%v): ns_last_pid is set back instead", err)
		return false
	}
	seen, err := os.ReadFile("/proc/self/fd/3") // pid_max of the namespace above, opened there
	if err != nil || strings.TrimSpace(string(seen)) == probe {
		_ = os.WriteFile("/proc/sys/kernel/pid_max", []byte(before), 0o644)
		t.Logf("pid_max is one for all namespaces here: ns_last_pid is set back instead")
		return false
	}
	if err := os.WriteFile("/proc/sys/kernel/pid_max", []byte("400"), 0o644); err != nil {
		t.Fatal(err)
	}
	return true
}

// reuse starts more programs than there are pids: each exec must be the child of this process, with a key of its own.
func reuse(t *testing.T, w *watch, small bool) {
	const programs, workers = 1500, 4
	work := make(chan int)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for i := range work {
				if err := exec.Command("/bin/true", "program", strconv.Itoa(i)).Run(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range programs {
		if !small && i%300 == 0 {
			lastPID(t, 400)
		}
		work <- i
	}
	close(work)
	group.Wait()
	w.wait(t, "all execs", func() bool {
		c := w.counters(t)
		return c.EmittedExits+c.DuplicateExits == c.Exits
	})
	agree(t, w)
	keys, pids, seen := make(map[event.ProcessKey]string), make(map[uint32]int), 0
	for _, e := range w.all() {
		if e.Kind != event.Exec || len(e.Exec.Argv) != 3 || e.Exec.Argv[1] != "program" {
			continue
		}
		seen++
		if e.Process.Parent.PID != uint32(os.Getpid()) {
			t.Errorf("%v has parent %v", e.Process.Key, e.Process.Parent)
		}
		if other, ok := keys[e.Process.Key]; ok {
			t.Errorf("%v is both program %s and %s", e.Process.Key, other, e.Exec.Argv[2])
		}
		keys[e.Process.Key] = e.Exec.Argv[2]
		pids[e.Process.Key.PID]++
	}
	if seen != programs || len(pids) >= programs {
		t.Errorf("%d programs were seen with %d pids, want %d with fewer", seen, len(pids), programs)
	}
	t.Logf("%d programs had %d pids", seen, len(pids))
	if living := w.Processes(); len(living) != 1 || living[0].Key.PID != uint32(os.Getpid()) {
		t.Errorf("living: %v", living)
	}
}

// parents reuses one pid for processes of different parents.
func parents(t *testing.T, w *watch) {
	const pid = 350
	var previous event.ProcessKey
	for i, tries := 0, 0; i < 20; i++ {
		name := fmt.Sprintf("name%d", i+tries)
		lastPID(t, pid-2)
		// The shell gets pid-1, its child pid, unless a new thread of this process does.
		cmd := exec.Command("/bin/sh", "-c", "/bin/true "+name+"; true")
		shell := run(t, cmd)
		e := w.until(t, name, func(e *event.Event) bool {
			return e.Kind == event.Exec && len(e.Exec.Argv) == 2 && e.Exec.Argv[1] == name
		})
		if e.Process.Key.PID != pid && tries < 20 {
			tries++
			i--
			continue
		}
		if shell != pid-1 || e.Process.Key.PID != pid || e.Process.Key == previous || e.Process.Parent.PID != pid-1 {
			t.Errorf("%s is %v, child of %v; before it was %v", name, e.Process.Key, e.Process.Parent, previous)
		}
		previous = e.Process.Key
		ancestors := w.Ancestors(e.Process.Key)
		if len(ancestors) != 2 || ancestors[0].Key != e.Process.Parent || ancestors[0].Comm != "sh" || ancestors[1].Key.PID != uint32(os.Getpid()) {
			t.Errorf("%s has ancestors %+v", name, ancestors)
		}
		exit := w.exit(t, pid)
		if exit.Process.Key != previous {
			t.Errorf("exit of %v, want %v", exit.Process.Key, previous)
		}
	}
}

// flags marks one process and gives its pid to another.
func flags(t *testing.T, w *watch) {
	const pid = 360
	lastPID(t, pid-1)
	marked := exec.Command("/bin/sleep", "1000")
	if err := marked.Start(); err != nil {
		t.Fatal(err)
	}
	if err := w.MarkPlatform(pid); err != nil {
		t.Fatal(err)
	}
	if marked.Process.Pid != pid || !w.Platform(pid) {
		t.Fatalf("pid %d, platform %v", marked.Process.Pid, w.Platform(pid))
	}
	first := w.exec(t, pid).Process
	_ = marked.Process.Kill()
	_ = marked.Wait()
	w.exit(t, pid)
	lastPID(t, pid-1)
	next := exec.Command("/bin/sleep", "1000")
	if err := next.Start(); err != nil {
		t.Fatal(err)
	}
	// Before the sensor's thread need have seen the fork: the old process is not named for the new one.
	if now := w.Lookup(pid); next.Process.Pid != pid || w.Platform(pid) || now != nil && now.Key == first.Key {
		t.Errorf("pid %d: platform %v, looked up as %v, before %v", next.Process.Pid, w.Platform(pid), now, first.Key)
	}
	if p, err := w.Load(pid); err != nil || p.Key == first.Key || p.Key.PID != pid {
		t.Errorf("loaded as %v: %v", p, err)
	}
	_ = next.Process.Kill()
	_ = next.Wait()
}
