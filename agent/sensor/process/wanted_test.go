package process_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/agent/sensor/process"
	"bailey/internal/boottime"
	"bailey/internal/roottest"
)

// spawnLoad starts and ends programs until the returned function is called.
func spawnLoad(workers int) (stop func()) {
	quit := make(chan struct{})
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
					_ = exec.Command("/bin/true", "load").Run()
				}
			}
		})
	}
	return func() { close(quit); group.Wait() }
}

// sleepers starts programs that sleep, and returns when they do: Start returns from the middle of execve, before the kernel says that it happened.
func sleepers(t testing.TB, n int) []*exec.Cmd {
	t.Helper()
	var all []*exec.Cmd
	for range n {
		cmd := exec.Command("/bin/sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, cmd)
	}
	t.Cleanup(func() { end(all) })
	for late := time.Now().Add(patience); slices.ContainsFunc(all, func(cmd *exec.Cmd) bool { return !sleeps(t, cmd) }); pause(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("a program that sleeps does not")
		}
	}
	return all
}

// sleeps reports whether a process is in the system call that it executed its program for.
func sleeps(t testing.TB, cmd *exec.Cmd) bool {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	number, _, _ := strings.Cut(string(text), " ")
	return number == strconv.Itoa(unix.SYS_CLOCK_NANOSLEEP) || number == strconv.Itoa(unix.SYS_NANOSLEEP)
}

// begin starts a program that the test speaks with, and returns both ends. The test ends it.
func begin(t testing.TB, cmd *exec.Cmd) (in io.WriteCloser, out io.Reader) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err = cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return in, out
}

func end(all []*exec.Cmd) {
	for _, cmd := range all {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// While nobody wants events nothing is sent and nobody is known; what the kernel keeps for itself is right all the same.
func TestUnwantedSensorRests(t *testing.T) {
	roottest.Require(t, needs)
	w := attach(t, process.Config{})
	w.run(t)
	if err := w.MarkPlatform(uint32(os.Getpid())); err != nil {
		t.Fatal(err)
	}
	before := sleepers(t, 1)[0]
	for range 20 {
		run(t, exec.Command("/bin/true"))
	}
	c := w.counters(t)
	if c.Execs+c.Forks+c.Exits != 0 || len(w.all()) != 0 || c.Unwanted < 40 {
		t.Errorf("unwanted: %d events, %+v", len(w.all()), c)
	}
	pid := uint32(before.Process.Pid)
	if p := w.Lookup(pid); p != nil || len(w.Processes()) != 0 {
		t.Errorf("looked up as %+v, %d processes", p, len(w.Processes()))
	}
	if p, err := w.Load(pid); err != nil || p.Executable != identity(t, "/bin/sleep") {
		t.Errorf("loaded as %+v: %v", p, err)
	}
	if !w.Platform(pid) {
		t.Error("a child born while nobody looked does not belong to the platform")
	}

	w.SetWanted(true)
	p := w.Lookup(pid)
	if p == nil || p.Executable != identity(t, "/bin/sleep") || p.Key.Start%10_000_000 == 0 {
		t.Fatalf("after the activation: %+v", p)
	}
	for _, e := range w.all() {
		if e.Process.Key.PID == pid || e.Kind == event.Fork && e.Fork.Child.Key.PID == pid {
			t.Errorf("emitted what happened before: %v of %v", e.Kind, pid)
		}
	}
	after := run(t, exec.Command("/bin/true"))
	if e := w.exec(t, after); e.Process.Parent.PID != uint32(os.Getpid()) {
		t.Errorf("the first program is %+v", e.Process)
	}
	w.exit(t, after)
	agree(t, w)

	w.SetWanted(false)
	quiet := w.counters(t)
	run(t, exec.Command("/bin/true"))
	if c := w.counters(t); c.Execs != quiet.Execs || c.Unwanted <= quiet.Unwanted || w.Lookup(pid) != nil {
		t.Errorf("after the rest began: %+v, before %+v", c, quiet)
	}
}

// isProc fails the test unless the tree is what /proc shows. Processes come and go meanwhile: a difference counts if it is
// there in each of several looks, or if it is about one that the test knows.
func isProc(t testing.TB, w *watch, living, dead []*exec.Cmd) {
	t.Helper()
	tree := make(map[uint32]*event.Process)
	for _, p := range w.Processes() {
		if tree[p.Key.PID] != nil {
			t.Errorf("pid %d is in the tree twice", p.Key.PID)
		}
		tree[p.Key.PID] = p
	}
	want := identity(t, "/bin/sleep")
	for _, cmd := range living {
		p := tree[uint32(cmd.Process.Pid)]
		if p == nil || p.Executable != want || p.Parent.PID != uint32(os.Getpid()) {
			t.Errorf("%d, which lives, is %+v", cmd.Process.Pid, p)
		}
		if found := w.Lookup(uint32(cmd.Process.Pid)); found != p {
			t.Errorf("%d is looked up as %+v", cmd.Process.Pid, found)
		}
	}
	for _, cmd := range dead {
		if p := tree[uint32(cmd.Process.Pid)]; p != nil && p.Executable == want && unix.Kill(cmd.Process.Pid, 0) != nil {
			t.Errorf("%d, which has ended, is %+v", cmd.Process.Pid, p)
		}
	}
}

// Under a load of short processes the sensor is wanted and not wanted 50 times: what was counted while it was wanted is
// what was emitted, each once, and the tree is right as soon as it is wanted.
func TestWantedAgainAndAgainUnderLoad(t *testing.T) {
	roottest.Require(t, needs)
	w := attach(t, process.Config{})
	w.run(t)
	stop := spawnLoad(4)
	var living []*exec.Cmd
	for round := range 50 {
		born := sleepers(t, 2) // unwanted
		w.SetWanted(true)
		for range 2 { // wanted; what the kernel said of it is applied a moment later
			cmd := sleepers(t, 1)[0]
			w.exec(t, cmd.Process.Pid)
			born = append(born, cmd)
		}
		isProc(t, w, append(living, born...), nil)
		if round%3 == 0 {
			pause(time.Duration(round) * time.Millisecond)
		}
		w.SetWanted(false)
		end(born[1:]) // half of each ends while nobody looks
		living = append(living, born[0])
		if round%2 == 0 {
			w.SetWanted(true) // at once, with records of the time before still on their way
			isProc(t, w, living, born[1:])
			w.SetWanted(false)
		}
	}
	stop()
	w.SetWanted(true)
	agree(t, w)
	isProc(t, w, living, nil)
	noGhosts(t, w)
	once(t, w.all())
	t.Logf("%+v", w.counters(t))
}

func pause(d time.Duration) { <-time.After(d) }

// noGhosts fails the test if the tree has a process that has ended without its event under way.
func noGhosts(t testing.TB, w *watch) {
	t.Helper()
	for _, p := range w.Processes() {
		if p.Kernel || unix.Kill(int(p.Key.PID), 0) == nil {
			continue
		}
		w.rewind()
		w.until(t, "exit of "+p.Key.String(), func(e *event.Event) bool { return e.Kind == event.Exit && e.Process.Key == p.Key })
	}
}

// once fails the test if a process was forked or ended twice.
func once(t testing.TB, events []*event.Event) {
	t.Helper()
	forked, ended := make(map[event.ProcessKey]int), make(map[event.ProcessKey]int)
	for _, e := range events {
		switch e.Kind {
		case event.Fork:
			if forked[e.Fork.Child.Key]++; forked[e.Fork.Child.Key] > 1 {
				t.Errorf("%v was forked twice", e.Fork.Child.Key)
			}
		case event.Exit:
			if ended[e.Process.Key]++; ended[e.Process.Key] > 1 {
				t.Errorf("%v ended twice", e.Process.Key)
			}
		}
	}
}

// An activation marks the never-ask programs that were started while nobody looked.
func TestActivationMarksNeverAsk(t *testing.T) {
	roottest.Require(t, needs)
	special := filepath.Join(t.TempDir(), "special")
	copyFile(t, "/bin/sleep", special)
	w := attach(t, process.Config{NeverAsk: func(p *event.Process) bool { return p.Executable.Path == special }})
	w.run(t)
	cmd := &exec.Cmd{Path: special, Args: []string{"sleep", "1000"}} // where one program is all tools, it goes by that name
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer end([]*exec.Cmd{cmd})
	pid := uint32(cmd.Process.Pid)
	w.wait(t, "the end of its exec", func() bool { // in an emulated machine it may still be this program
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		return err == nil && exe == special
	})
	if w.NeverAsk(pid) {
		t.Error("marked while nobody looked")
	}
	w.SetWanted(true)
	if !w.NeverAsk(pid) {
		t.Errorf("not marked after the activation: %+v", w.Lookup(pid))
	}
}

// While nobody looked a pid was given to others, as often as the kernel's counter of forks needs to come back to where it
// was: the process before is not named for them.
func TestLookupAfterManyForks(t *testing.T) {
	roottest.Require(t, needs)
	if _, err := os.Stat("/proc/sys/kernel/ns_last_pid"); err != nil {
		roottest.Unavailable(t, "pids cannot be chosen here")
	}
	w := attach(t, process.Config{Wanted: true})
	w.run(t)
	first := exec.Command("/bin/true")
	pid := run(t, first)
	was := w.exit(t, pid).Process
	w.SetWanted(false)
	reused := 0
	for range 64 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0o644); err != nil {
			roottest.Unavailable(t, fmt.Sprintf("pids cannot be chosen here: %v", err))
		}
		cmd := exec.Command("/bin/true")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if cmd.Process.Pid == pid {
			reused++
			if p := w.Lookup(uint32(pid)); p != nil {
				t.Errorf("looked up as %v", p.Key)
			}
		}
		_ = cmd.Wait()
	}
	w.SetWanted(true)
	// An ended process may be named only until its pid is given away; that it was, the wrapped counter cannot tell.
	if p := w.Lookup(uint32(pid)); reused > 0 && p != nil && p.Key == was.Key {
		t.Errorf("after %d others had pid %d, the first is looked up: %v", reused, pid, p.Key)
	}
}

// Without BPF, /proc is not read while nobody wants it.
func TestPollingRests(t *testing.T) {
	w := attach(t, process.Config{WithoutBPF: true, PollInterval: 10 * time.Millisecond})
	w.run(t)
	cmd := sleepers(t, 1)[0]
	pid := uint32(cmd.Process.Pid)
	pause(50 * time.Millisecond)
	if p := w.Lookup(pid); p != nil || len(w.all()) != 0 {
		t.Errorf("looked up as %+v, %d events", p, len(w.all()))
	}
	w.SetWanted(true)
	if p := w.Lookup(pid); p == nil || boottime.ToTicks(p.Key.Start) == 0 {
		t.Errorf("after the activation: %+v", p)
	}
	later := sleepers(t, 1)[0]
	w.exec(t, later.Process.Pid)
	for _, e := range w.all() {
		if e.Process.Key.PID == pid || e.Kind == event.Fork && e.Fork.Child.Key.PID == pid {
			t.Errorf("emitted what happened before: %v", e)
		}
	}
	w.SetWanted(false)
	end([]*exec.Cmd{cmd, later})
	w.SetWanted(true)
	for _, p := range w.Processes() {
		if p.Key.PID == pid {
			t.Errorf("%v is still there", p.Key)
		}
	}
}
