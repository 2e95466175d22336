package process_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/agent/sensor/process"
	"bailey/internal/roottest"
)

// 2,000 short processes from 50 goroutines: the kernel's counters, the events and the commands agree.
func TestNothingIsLostUnderLoad(t *testing.T) {
	roottest.Require(t, needs)
	w := start(t, process.Config{})
	const workers, each = 50, 40
	var group sync.WaitGroup
	pids := make([][]int, workers)
	for i := range workers {
		group.Go(func() {
			for j := range each {
				cmd := exec.Command("/bin/true", fmt.Sprintf("%d.%d", i, j))
				if err := cmd.Run(); err != nil {
					t.Error(err)
					return
				}
				pids[i] = append(pids[i], cmd.Process.Pid)
			}
		})
	}
	group.Wait()
	for i := range workers {
		for _, pid := range pids[i] {
			w.rewind()
			w.exit(t, pid)
		}
	}
	agree(t, w)
	args, mine := make(map[string]int), uint32(os.Getpid())
	for _, e := range w.all() {
		if e.Kind == event.Exec && e.Process.Parent.PID == mine && len(e.Exec.Argv) == 2 {
			args[e.Exec.Argv[1]]++
		}
	}
	if len(args) != workers*each {
		t.Errorf("%d different execs were seen, want %d", len(args), workers*each)
	}
}

// agree fails the test unless every record that the kernel counted was emitted. The machine's other processes go on
// meanwhile, so the two are read until they meet.
func agree(t testing.TB, w *watch) {
	t.Helper()
	var c process.Counters
	meet := func() bool {
		if c.Overlap > 0 { // of any kind
			return c.EmittedExecs+c.EmittedForks+c.ForksFromOutside+c.EmittedExits+c.DuplicateExits+c.Overlap == c.Execs+c.Forks+c.Exits
		}
		return c.EmittedExecs == c.Execs && c.EmittedForks+c.ForksFromOutside == c.Forks && c.EmittedExits+c.DuplicateExits == c.Exits
	}
	for range 1000 {
		if c = w.counters(t); meet() {
			break
		}
		_ = exec.Command("/bin/true").Run() // lets the sensor's thread run
	}
	if !meet() {
		t.Errorf("emitted and counted differ: %+v", c)
	}
	if c.LostExecs+c.LostForks+c.LostExits+c.LostScratch+c.Recursions+c.Malformed+c.UnknownKinds != 0 {
		t.Errorf("something was lost: %+v", c)
	}
}

func TestProcessesFromBeforeAreThere(t *testing.T) {
	roottest.Require(t, needs)
	cmd := helper("fork_when_told")
	in, out := begin(t, cmd)
	defer cmd.Wait()         //nolint:errcheck // killed
	defer cmd.Process.Kill() //nolint:errcheck // ends with the test
	said := bufio.NewScanner(out)
	said.Scan()

	w := start(t, process.Config{})
	p := w.Lookup(uint32(cmd.Process.Pid))
	if p == nil {
		t.Fatal("the process from before is not known")
	}
	if want := identity(t, "/proc/self/exe"); p.Executable != want {
		t.Errorf("executable is %+v, want %+v", p.Executable, want)
	}
	if init := w.Lookup(1); init == nil || init.Key.PID != 1 {
		t.Errorf("pid 1 is %+v", init)
	}
	if p.Key.Start%10_000_000 == 0 {
		t.Errorf("start %d looks rounded", p.Key.Start)
	}
	ancestors := w.Ancestors(p.Key)
	if len(ancestors) < 2 || ancestors[0].Key.PID != uint32(os.Getpid()) || ancestors[len(ancestors)-1].Key.PID != 1 {
		t.Errorf("ancestors: %v", ancestors)
	}
	_, _ = fmt.Fprintln(in, "1000")
	said.Scan()
	var child uint32
	_, _ = fmt.Sscan(said.Text(), &child)
	fork := w.fork(t, int(child))
	if fork.Process.Key != p.Key {
		t.Errorf("forked by %v, want the same key as before, %v", fork.Process.Key, p.Key)
	}
	_ = unix.Kill(int(child), unix.SIGKILL)
}

// Processes start and end while the sensor attaches, again and again: afterwards the tree is /proc's, with no ghost.
func TestNoGhostsFromAttaching(t *testing.T) {
	roottest.Require(t, needs)
	stop := make(chan struct{})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = exec.Command("/bin/true").Run()
				}
			}
		})
	}
	var watches []*watch
	for range 5 {
		watches = append(watches, start(t, process.Config{RingBytes: 1 << 20}))
	}
	close(stop)
	group.Wait()
	for _, w := range watches {
		last := run(t, exec.Command("/bin/true"))
		w.exit(t, last)
		for _, p := range w.Processes() {
			if p.Kernel || unix.Kill(int(p.Key.PID), 0) == nil {
				continue
			}
			// It may have ended just now, with its event under way.
			w.rewind()
			w.exit(t, int(p.Key.PID))
		}
	}
}

// A ring of one page cannot hold what happens before Run: the loss is counted, said, and the tree repaired.
func TestLossIsCountedAndTheTreeRepaired(t *testing.T) {
	roottest.Require(t, needs)
	small := startPaused(t, process.Config{RingBytes: 4096})
	var alive []*exec.Cmd
	for range 30 {
		cmd := exec.Command("/bin/sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		alive = append(alive, cmd)
	}
	defer func() {
		for _, cmd := range alive {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	c := small.counters(t)
	if c.LostExecs == 0 || c.LostForks == 0 {
		t.Fatalf("nothing was lost: %+v", c)
	}
	small.run(t)
	small.wait(t, "the repair", func() bool { return small.counters(t).Rescans > 0 })
	want := identity(t, "/bin/sleep")
	for _, cmd := range alive {
		small.wait(t, "the tree to be right", func() bool {
			p := small.Lookup(uint32(cmd.Process.Pid))
			return p != nil && p.Executable == want
		})
	}
	entries := small.health.List()
	if len(entries) != 1 || entries[0].Remedy == "" || !strings.Contains(entries[0].Summary, "lost") {
		t.Errorf("health: %+v", entries)
	}
}

// TestRingIsMeasured: what the kernel wrote and nobody read yet is there to be seen.
func TestRingIsMeasured(t *testing.T) {
	roottest.Require(t, needs)
	w := startPaused(t, process.Config{RingBytes: 1 << 20}) // nobody reads
	before, size := w.Ring()
	if err := exec.Command("/bin/true").Run(); err != nil {
		t.Fatal(err)
	}
	if after, _ := w.Ring(); size != 1<<20 || after <= before || after > size {
		t.Errorf("%d bytes waited in a ring of %d, and %d after an exec", before, size, after)
	}
}
