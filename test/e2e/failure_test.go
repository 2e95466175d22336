package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bailey/test/rig"

	"golang.org/x/sys/unix"
)

// The classes F1 to F11 are the known ways in which programs that answer fanotify questions hang or break machines; see
// docs/limitations.md. Those that need no whole agent are tests of agent/sensor/file and agent/verdict.

// F1: the agent logs, and the reader of its log is itself waiting for an answer.
func TestFullLogPipeHoldsNobodyUp(t *testing.T) {
	a := rig.New(t, built, "[agent]\nlog_level = \"debug\"\n")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	pipe := int(w.Fd()) // once: each call makes the pipe blocking again
	if _, err := unix.FcntlInt(uintptr(pipe), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	a.Log = w
	a.Start()
	t.Cleanup(a.Stop)
	// Nobody reads: once the pipe is full, whoever writes to it waits.
	if err := unix.SetNonblock(pipe, true); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := unix.Write(pipe, make([]byte, 512)); err != nil {
			break
		}
	}
	if err := unix.SetNonblock(pipe, false); err != nil {
		t.Fatal(err)
	}
	a.Install(rig.Spec{Name: "judge", Questions: "exec"})
	p := a.Program("works")
	for range 50 {
		start := time.Now()
		if err := execs(p); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 300*time.Millisecond {
			t.Fatalf("an exec took %s while the log's pipe was full", took)
		}
	}
	for range 30 { // lines that find no room
		a.Must("product", "restart", "judge")
	}
	if err := execs(p); err != nil {
		t.Fatal(err)
	}
	if n := a.Product("judge").GetCounters().GetMisses(); n != 0 {
		t.Errorf("%d misses", n)
	}
	// The reader goes away altogether: that must not end the agent by SIGPIPE.
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	a.Must("product", "restart", "judge")
	if err := execs(p); err != nil {
		t.Fatal(err)
	}
}

// F2: what the agent opens while it answers is asked about itself.
func TestAgentWithItsStateOnAWatchedFilesystemAsksAboutNothingOfItsOwn(t *testing.T) {
	a := rig.New(t, built, "")
	a.State = filepath.Join(a.Scratch, "state")
	a.Start()
	t.Cleanup(a.Stop)
	a.Install(rig.Spec{Name: "judge", Questions: "open,exec", Request: fmt.Sprintf("open_scope = [%q]\n", a.Scratch)})
	path := filepath.Join(a.Scratch, "file")
	if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	const opens = 2000
	before := a.Status()
	for range opens {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	after := a.Status()
	if got := after.GetQuestions().GetAsked() - before.GetQuestions().GetAsked(); got != opens {
		t.Errorf("%d opens made %d permission events: %v", opens, got, after.GetQuestions().GetByReason())
	}
}

// F3: the answer depends on a daemon, and the daemon waits for the answer.
func TestGrantedDaemonIsNotAsked(t *testing.T) {
	a := startAgent(t, "[questions]\nopen_deadline = \"2s\"\n")
	daemon := filepath.Join(a.Scratch, "daemon")
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	a.CopyFile(cat, daemon, 0o755)
	data := filepath.Join(a.Scratch, "data")
	if err := os.WriteFile(data, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	a.Install(rig.Spec{Name: "scanner", Questions: "open", Request: fmt.Sprintf("daemons = [%q]\n", daemon),
		Settings: map[string]string{"hang": "true", "only": data}})
	before := a.Product("scanner").GetCounters().GetQuestions()
	start := time.Now()
	if out, err := exec.Command(daemon, data).Output(); err != nil || string(out) != "x" {
		t.Fatalf("the daemon read %q: %v", out, err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("the daemon waited %s for the product that waits for it", took)
	}
	// What was asked about is the daemon's own start, by the process that executes it; the data was not.
	after := a.Product("scanner").GetCounters()
	if after.GetMisses() != 0 {
		t.Errorf("%d questions of the daemon reached the product (%d before)", after.GetQuestions(), before)
	}
}

// F6: more openers than the agent can hold.
func TestOverloadIsAnsweredAndCounted(t *testing.T) {
	a := startAgent(t, "[questions]\nopen_deadline = \"1s\"\nmax_in_flight = 16\n")
	const openers = 200
	paths := make([]string, openers)
	for i := range paths {
		paths[i] = filepath.Join(a.Scratch, fmt.Sprintf("f%d", i))
		if err := os.WriteFile(paths[i], nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a.Install(rig.Spec{Name: "slow", Questions: "open", Settings: map[string]string{"hang": "true", "only": a.Scratch + "/f"}})
	before := a.Status().GetQuestions()
	var longest atomic.Int64
	var all sync.WaitGroup
	for _, p := range paths {
		all.Go(func() {
			start := time.Now()
			fd, err := unix.Open(p, unix.O_RDONLY, 0)
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			_ = unix.Close(fd)
			took := int64(time.Since(start))
			for old := longest.Load(); took > old && !longest.CompareAndSwap(old, took); old = longest.Load() {
			}
		})
	}
	all.Wait()
	if got := time.Duration(longest.Load()); got > 1500*time.Millisecond {
		t.Errorf("an opener waited %s with a deadline of 1 s", got)
	}
	after := a.Status().GetQuestions()
	if got := after.GetAsked() - before.GetAsked(); got != openers {
		t.Errorf("%d opens made %d questions", openers, got)
	}
	if after.GetByReason()["overload"] == before.GetByReason()["overload"] {
		t.Errorf("nothing was counted as overload: %v", after.GetByReason())
	}
}

// F8: products, grants and subscriptions change while questions are asked.
func TestChangesUnderLoadNeverDeny(t *testing.T) {
	a := startAgent(t, "")
	a.Install(rig.Spec{Name: "one", Questions: "exec", Settings: map[string]string{"cache": "true", "note": ""}})
	a.Install(rig.Spec{Name: "two", Questions: "exec"})
	p := a.Program("works")
	stop := make(chan struct{})
	var load sync.WaitGroup
	var execd atomic.Int64
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := execs(p); err != nil {
					t.Errorf("exec while products change: %v", err)
					return
				}
				execd.Add(1)
			}
		})
	}
	for i := range 5 {
		a.Must("product", "set", "one", fmt.Sprintf("note=%d", i))
		a.Must("product", "revoke", "two", "deny")
		a.Must("product", "grant", "two", "deny")
		a.Must("product", "restart", "two")
		a.Must("cache", "clear")
	}
	close(stop)
	load.Wait()
	if execd.Load() == 0 {
		t.Error("nothing ran meanwhile")
	}
}

// F11: mounts come and go while questions are asked.
func TestMountStormHoldsNobodyUp(t *testing.T) {
	a := startAgent(t, "")
	a.Install(rig.Spec{Name: "judge", Questions: "exec,open"})
	p := a.Program("works")
	point := filepath.Join(a.Scratch, "point")
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := unix.Mount("storm", point, "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(point, "file"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := execs(p); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := unix.Unmount(point, 0); err != nil {
			t.Fatalf("unmount %d: %v", i, err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("an unmount took %s", took)
		}
	}
}

// The agent's own death: the kernel lets everybody through and nothing is left that asks.
func TestKilledAgentHoldsNobodyUp(t *testing.T) {
	a := startAgent(t, "[questions]\nexec_deadline = \"10s\"\nextend_cap = \"10s\"\n")
	a.Install(rig.Spec{Name: "never", Questions: "exec", Settings: map[string]string{"hang": "true", "only": a.Scratch + "/slow"}})
	p := a.Program("slow")
	product := int(a.Product("never").GetPid())
	result := make(chan error, 1)
	go func() { result <- execs(p) }()
	time.Sleep(500 * time.Millisecond) // it waits for an answer now
	a.Kill()
	select {
	case err := <-result:
		if err != nil {
			t.Errorf("exec after the agent's death: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("an exec waits for a dead agent")
	}
	a.Eventually("the product is gone too", 5*time.Second, func() error {
		if err := syscall.Kill(product, 0); err == nil {
			return fmt.Errorf("process %d lives", product)
		}
		return nil
	})
	a.Start() // what it left is cleaned up, what was installed runs again
	a.Running("never")
}
