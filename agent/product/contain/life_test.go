package contain_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/product/cgroup"
	"bailey/agent/product/contain"
)

func TestMemory_beyond_the_limit_kills_the_product_alone(t *testing.T) {
	a := newArena(t, cgroup.Limits{Memory: 64 << 20, Pids: 64, CPU: 2})
	out, exit := a.run("eat_memory", "200")
	if exit.Signal != int(unix.SIGKILL) {
		t.Errorf("got %+v, %s; want killed", exit, out)
	}
	if s := a.group.Stats(); s.OOMKills == 0 {
		t.Errorf("no kill is counted: %+v", s)
	}
	out, exit = a.run("eat_memory", "20") // the same within the limit
	if exit.Code != 0 || out != "ok: 20 MiB touched" {
		t.Errorf("got %+v, %s; want 20 MiB", exit, out)
	}
}

func TestCPU_stays_within_the_quota(t *testing.T) {
	const quota, span = 0.2, 2 * time.Second
	a := newArena(t, cgroup.Limits{Memory: 128 << 20, Pids: 64, CPU: quota})
	p := a.start("spin", fmt.Sprint(span.Milliseconds()))
	before, began := a.group.Stats().CPU, time.Now()
	a.wait(p)
	used, took := a.group.Stats().CPU-before, time.Since(began)
	if share := used.Seconds() / took.Seconds(); share > quota*1.3 || used == 0 {
		t.Errorf("used %v in %v: %.2f cores, the quota is %.2f", used, took, share, quota)
	}
}

func TestForkBomb_is_bounded_and_leaves_nothing(t *testing.T) {
	a := newArena(t, cgroup.Limits{Memory: 256 << 20, Pids: 64, CPU: 0.5})
	p := a.start("fork_bomb")
	deadline := time.Now().Add(10 * time.Second)
	for a.group.Stats().Pids < 60 && time.Now().Before(deadline) {
		<-time.After(10 * time.Millisecond) // real processes: there is no clock to fake
	}
	if n := a.group.Stats().Pids; n < 60 || n > 64 {
		t.Errorf("%d processes and threads, want close to 64 and no more", n)
	}
	p.Kill()
	a.wait(p)
	if pids, err := a.group.Procs(); err != nil || len(pids) != 0 {
		t.Errorf("left: %v, %v", pids, err)
	}
}

func TestTerminate_reaches_a_product_without_a_handler(t *testing.T) {
	a := newArena(t, cgroup.Limits{Memory: 128 << 20, Pids: 64, CPU: 1})
	p := a.start("sleep")
	if p.PID() == 0 || p.PID() == p.InitPID() {
		t.Errorf("the product's pid is %d, its init's %d", p.PID(), p.InitPID())
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID()))
	if err != nil || filepath.Base(exe) != "probe" {
		t.Errorf("pid %d runs %s, %v", p.PID(), exe, err)
	}
	p.Terminate()
	if exit := a.wait(p); exit.Signal != int(unix.SIGTERM) && exit.Code != 2 {
		t.Errorf("got %+v, want ended by SIGTERM", exit)
	}
}

func TestKill9_of_the_product_is_reported(t *testing.T) {
	a := newArena(t, cgroup.Limits{Memory: 128 << 20, Pids: 64, CPU: 1})
	p := a.start("sleep")
	if err := unix.Kill(p.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if exit := a.wait(p); exit.Signal != int(unix.SIGKILL) {
		t.Errorf("got %+v", exit)
	}
}

// The product hears of it when its socket's other end goes, and the agent when the product does.
func TestSocket_closes_with_the_product(t *testing.T) {
	a := newArena(t, cgroup.Limits{Memory: 128 << 20, Pids: 64, CPU: 1})
	p := a.start("exit", "7")
	if exit := a.wait(p); exit.Code != 7 || exit.Signal != 0 {
		t.Errorf("got %+v, want 7", exit)
	}
	n, err := unix.Read(int(a.socket.Fd()), make([]byte, 8))
	if n != 0 || err != nil {
		t.Errorf("got %d, %v; want the end", n, err)
	}
}

func TestStart_reports_why(t *testing.T) {
	tests := []struct {
		name, want string
		change     func(*contain.Spec)
	}{
		{"no_such_program", "execute ./missing: no such file", func(s *contain.Spec) { s.Command = []string{"./missing"} }},
		{"not_executable", "permission denied", func(s *contain.Spec) { s.Command = []string{"./text"} }},
		{"no_release", "mount release", func(s *contain.Spec) { s.Release += "/missing" }},
		{"no_state", "mount state", func(s *contain.Spec) { s.State += "/missing" }},
		{"as_root", "must not run as root", func(s *contain.Spec) { s.UID = 0 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newArena(t, cgroup.Limits{Memory: 128 << 20, Pids: 64, CPU: 1})
			write(t, filepath.Join(a.spec.Release, "text"), "text", 0o644)
			a.spec.Command = []string{"./probe"}
			tt.change(&a.spec)
			p, err := a.tryStart()
			if err == nil {
				p.Kill()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if pids, err := a.group.Procs(); err != nil || len(pids) != 0 {
				t.Errorf("left: %v, %v", pids, err)
			}
		})
	}
}

// A daemon's socket that appears or is replaced while the product runs becomes reachable, read-only and alone.
func TestReconnect(t *testing.T) {
	a := newArena(t, cgroup.Limits{Memory: 128 << 20, Pids: 64, CPU: 1})
	path := filepath.Join(t.TempDir(), "daemon.sock")
	a.spec.Connect = []string{path}
	sockets := contain.WatchSockets(a.spec)
	p := a.start("connect_on_command", path)
	for round, listen := range []bool{false, true, false, true} {
		if listen {
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = ln.Close() }()
			if err := os.Chmod(path, 0o666); err != nil {
				t.Fatal(err)
			}
		} else if round > 0 {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		if err := sockets.Refresh(p); err != nil {
			t.Fatal(err)
		}
		if _, err := a.socket.Write([]byte("go")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 256)
		n, err := a.socket.Read(buf)
		if err != nil {
			t.Fatalf("%v: %s", err, a.output())
		}
		// The old daemon of round 2 still listens: its socket is unlinked, and reachable until a new one is there.
		if got := string(buf[:n]); strings.HasPrefix(got, "connected") != (round > 0) {
			t.Errorf("round %d: %s", round, got)
		}
	}
	p.Kill()
	a.wait(p)
}

// thp is whether the kernel gives a process huge pages unasked: "0" or "1".
func thp(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "THP_enabled:"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

// What a contained product costs beside itself, for the record.
func TestInit_is_small(t *testing.T) {
	a := newArena(t, cgroup.Limits{Memory: 128 << 20, Pids: 64, CPU: 1})
	p := a.start("sleep")
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.InitPID()))
	if err != nil {
		t.Fatal(err)
	}
	private := 0
	for line := range strings.Lines(string(b)) {
		var kib int
		if _, err := fmt.Sscanf(line, "Anonymous: %d kB", &kib); err == nil {
			private = kib
		}
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.InitPID()))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("pid 1: %d KiB of its own, %d threads", private, len(tasks))
	if private == 0 || private > 4<<10 || len(tasks) > 8 {
		t.Errorf("pid 1 takes %d KiB of its own memory and %d threads", private, len(tasks))
	}
	if thp(t, p.InitPID()) != "0" || thp(t, p.PID()) != "1" {
		t.Errorf("huge pages: pid 1 has %s, the product %s; want 0 and 1", thp(t, p.InitPID()), thp(t, p.PID()))
	}
	p.Kill()
	a.wait(p)
}

// A product in a language with a runtime of its own works with the host's interpreter and libraries granted, and nothing else.
func TestInterpreter(t *testing.T) {
	if _, err := os.Stat("/usr/bin/python3"); err != nil {
		t.Skip("no /usr/bin/python3")
	}
	a := newArena(t, cgroup.Limits{Memory: 128 << 20, Pids: 64, CPU: 1})
	a.spec.Read = []string{"/lib", "/lib64", "/usr"}
	write(t, filepath.Join(a.spec.Release, "main.py"), `
import os, socket, subprocess, tempfile, threading
s = socket.socket(fileno=3)
assert s.type == socket.SOCK_SEQPACKET, s.type
s.send(b"hello")
tempfile.TemporaryFile().write(b"x")
open(os.environ["STATE_DIRECTORY"] + "/x", "w").write("x")
t = threading.Thread(target=print, args=("thread",)); t.start(); t.join()
print(subprocess.run(["/usr/bin/id", "-un"], capture_output=True, text=True).stdout.strip())
try:
    open("/usr/new", "w")
except OSError as e:
    print(e.strerror)
`, 0o644)
	a.spec.Command = []string{"/usr/bin/python3", "main.py"}
	p, err := a.tryStart()
	if err != nil {
		t.Fatal(err)
	}
	exit := a.wait(p)
	if out := a.output(); exit.Code != 0 || !strings.HasPrefix(out, "thread\nproduct\n") || !matches(out, "Permission denied|Read-only") {
		t.Errorf("%+v: %s", exit, out)
	}
	b := make([]byte, 16)
	if n, err := a.socket.Read(b); err != nil || string(b[:n]) != "hello" {
		t.Errorf("got %q, %v", b[:n], err)
	}
}

// BenchmarkStart is the time from the decision to start a product until its program is being executed.
func BenchmarkStart(b *testing.B) {
	a := newArena(b, cgroup.Limits{Memory: 128 << 20, Pids: 64, CPU: 1})
	for b.Loop() {
		p := a.start("sleep")
		b.StopTimer()
		p.Kill()
		a.wait(p)
		b.StartTimer()
	}
}
