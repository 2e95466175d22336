package process_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/agent/sensor/process"
	"bailey/internal/boottime"
	"bailey/internal/roottest"
)

const needs = "loads BPF programs"

func run(t testing.TB, cmd *exec.Cmd) int {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return cmd.Process.Pid
}

func identity(t testing.TB, path string) event.File {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return event.File{
		Path: real, Dev: st.Dev, Ino: st.Ino, CTime: st.Ctim.Nano(), MTime: st.Mtim.Nano(), Size: st.Size,
		Mode: st.Mode, UID: st.Uid, GID: st.Gid,
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestExecSaysWhoBecameWhat(t *testing.T) {
	roottest.Require(t, needs)
	w := start(t, process.Config{})
	dir := "/tmp" // that the other user may enter
	before := boottime.Now()
	cmd := exec.Command("/bin/true", "one", "", "two words")
	cmd.Dir, cmd.Env = dir, []string{"A=1", "BB=22"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 2345}}
	pid := run(t, cmd)
	after := boottime.Now()

	fork, e, exit := w.fork(t, pid), w.exec(t, pid), w.exit(t, pid)
	want := &event.ExecDetail{
		Argv: []string{"/bin/true", "one", "", "two words"}, Argc: 4, EnvSize: uint32(len("A=1\x00BB=22\x00")),
		CWD: dir, Previous: e.Process.Key, PreviousExe: identity(t, "/proc/self/exe").Path,
	}
	if diff := cmp.Diff(want, e.Exec); diff != "" {
		t.Errorf("exec detail (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(identity(t, "/bin/true"), e.Process.Executable); diff != "" {
		t.Errorf("executable (-want +got):\n%s", diff)
	}
	creds := event.Credentials{UID: 1234, EUID: 1234, SUID: 1234, FSUID: 1234, GID: 2345, EGID: 2345, SGID: 2345, FSGID: 2345}
	if diff := cmp.Diff(creds, e.Process.Credentials); diff != "" {
		t.Errorf("credentials (-want +got):\n%s", diff)
	}
	if e.Process.Comm != "true" || e.Process.Kernel {
		t.Errorf("process is %+v", e.Process)
	}
	if key := e.Process.Key; fork.Fork.Child.Key != key || exit.Process.Key != key || key.Start < before || key.Start > after {
		t.Errorf("keys: fork %v, exec %v, exit %v; started between %d and %d", fork.Fork.Child.Key, key, exit.Process.Key, before, after)
	}
	if fork.Process.Key.PID != uint32(os.Getpid()) || e.Process.Parent != fork.Process.Key {
		t.Errorf("parent is %v, forked by %v, want pid %d", e.Process.Parent, fork.Process.Key, os.Getpid())
	}
	if !(before <= fork.Time && fork.Time <= e.Time && e.Time <= exit.Time && exit.Time <= after) {
		t.Errorf("times %d, %d, %d are not between %d and %d", fork.Time, e.Time, exit.Time, before, after)
	}
}

func TestProcessAgreesWithProc(t *testing.T) {
	roottest.Require(t, needs)
	w := start(t, process.Config{})
	cmd := exec.Command("/bin/sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()         //nolint:errcheck // killed
	defer cmd.Process.Kill() //nolint:errcheck // ends with the test
	e := w.exec(t, cmd.Process.Pid)

	// The second sensor reads the process from /proc alone.
	plain := start(t, process.Config{WithoutBPF: true})
	got := *e.Process
	want := *plain.Lookup(uint32(cmd.Process.Pid))
	if boottime.ToTicks(got.Key.Start) != boottime.ToTicks(want.Key.Start) || boottime.ToTicks(got.Parent.Start) != boottime.ToTicks(want.Parent.Start) {
		t.Errorf("keys %v %v, /proc has %v %v", got.Key, got.Parent, want.Key, want.Parent)
	}
	got.Key, got.Parent, got.CgroupID = want.Key, want.Parent, 0
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("process as /proc has it and as the kernel sent it (-proc +kernel):\n%s", diff)
	}
}

func TestExecOfAScriptNamesIt(t *testing.T) {
	roottest.Require(t, needs)
	w := start(t, process.Config{})
	dir := t.TempDir()
	script := filepath.Join(dir, "hello.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{script, "./hello.sh"} {
		cmd := &exec.Cmd{Path: name, Args: []string{name, "x"}, Dir: dir}
		e := w.exec(t, run(t, cmd))
		if e.Exec.Script != script {
			t.Errorf("%s: script is %q", name, e.Exec.Script)
		}
		if want := identity(t, "/bin/sh"); e.Process.Executable != want {
			t.Errorf("%s: executable is %+v, want the interpreter %+v", name, e.Process.Executable, want)
		}
		if diff := cmp.Diff([]string{"/bin/sh", name, "x"}, e.Exec.Argv); diff != "" {
			t.Errorf("%s: arguments (-want +got):\n%s", name, diff)
		}
	}
}

func TestExecOfAFileWithoutAName(t *testing.T) {
	roottest.Require(t, needs)
	w := start(t, process.Config{})
	dir := t.TempDir()
	gone := filepath.Join(dir, "gone")
	copyFile(t, "/bin/true", gone)
	deleted, err := os.Open(gone)
	if err != nil {
		t.Fatal(err)
	}
	defer deleted.Close() //nolint:errcheck // only read from
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("in_memory", 0)
	if err != nil {
		t.Fatal(err)
	}
	memory := os.NewFile(uintptr(fd), "in_memory")
	defer memory.Close() //nolint:errcheck // ends with the test
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := memory.Write(program); err != nil {
		t.Fatal(err)
	}
	for path, file := range map[string]*os.File{gone: deleted, "/memfd:in_memory": memory} {
		cmd := &exec.Cmd{Path: "/proc/self/fd/3", Args: []string{"true"}}
		cmd.ExtraFiles = []*os.File{file}
		e := w.exec(t, run(t, cmd))
		if got := e.Process.Executable; got.Path != path || !got.Deleted || got.Size != int64(len(program)) {
			t.Errorf("executable is %+v, want %s, deleted, of %d bytes", got, path, len(program))
		}
	}
}

func TestExecCutsLongArguments(t *testing.T) {
	roottest.Require(t, needs)
	w := start(t, process.Config{})
	long := strings.Repeat("x", 10_000)
	e := w.exec(t, run(t, exec.Command("/bin/true", "first", long, "last")))
	text := strings.Join(e.Exec.Argv, "\x00")
	if !e.Exec.ArgvTruncated || e.Exec.Argc != 4 || len(text) != 4096 || !strings.HasPrefix(text, "/bin/true\x00first\x00xxx") {
		t.Errorf("cut %v, %d arguments, %d bytes of %.30q", e.Exec.ArgvTruncated, e.Exec.Argc, len(text), text)
	}
}

func TestExecInADeepDirectory(t *testing.T) {
	roottest.Require(t, needs)
	w := start(t, process.Config{})
	for _, depth := range []int{20, 200} { // 200 is more than the kernel's part walks
		dir := t.TempDir() + strings.Repeat("/d", depth)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		program := filepath.Join(dir, "sleep")
		copyFile(t, "/bin/sleep", program)
		cmd := exec.Command(program, "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		e := w.exec(t, cmd.Process.Pid)
		if want := identity(t, program); e.Process.Executable != want {
			t.Errorf("%d directories: executable is %+v, want %+v", depth, e.Process.Executable, want)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

func TestExitSaysHow(t *testing.T) {
	roottest.Require(t, needs)
	w := start(t, process.Config{})
	for _, c := range []struct {
		name string
		cmd  *exec.Cmd
		want event.ExitDetail
	}{
		{"status", exec.Command("/bin/sh", "-c", "exit 42"), event.ExitDetail{Code: 42}},
		{"signal", exec.Command("/bin/sh", "-c", "kill -9 $$"), event.ExitDetail{Signal: 9}},
		{"core_signal", exec.Command("/bin/sh", "-c", "ulimit -c 0; kill -6 $$"), event.ExitDetail{Signal: 6}},
		{"threads", helper("exit_from_threads"), event.ExitDetail{Code: 7}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_ = c.cmd.Run()
			e := w.exit(t, c.cmd.Process.Pid)
			if *e.Exit != c.want {
				t.Errorf("exit is %+v, want %+v", *e.Exit, c.want)
			}
			for _, p := range w.Processes() {
				if p.Key == e.Process.Key {
					t.Errorf("%v is still among the living", p.Key)
				}
			}
			if late := w.Lookup(uint32(c.cmd.Process.Pid)); late == nil || late.Key != e.Process.Key {
				t.Errorf("a late event finds %v, want %v", late, e.Process.Key)
			}
		})
	}
}

func TestExecFromAThreadKeepsTheKey(t *testing.T) {
	roottest.Require(t, needs)
	w := start(t, process.Config{})
	pid := run(t, helper("exec_from_thread"))
	first := w.exec(t, pid)
	second := w.exec(t, pid)
	if first.Process.Key != second.Process.Key || second.Exec.Argv[1] != "from_thread" || second.Exec.PreviousExe != first.Process.Executable.Path {
		t.Errorf("first %+v\nthen %+v %+v", first.Process, second.Process, second.Exec)
	}
	if exit := w.exit(t, pid); exit.Process.Key != second.Process.Key {
		t.Errorf("exit of %v", exit.Process.Key)
	}
}

func TestForkCarriesAChangeOfCredentials(t *testing.T) {
	roottest.Require(t, needs)
	w := start(t, process.Config{})
	cmd := helper("setuid")
	cmd.Stdin = strings.NewReader("4321\n")
	pid := run(t, cmd)
	e := w.until(t, "fork by the helper", func(e *event.Event) bool { return e.Kind == event.Fork && e.Process.Key.PID == uint32(pid) })
	if e.Process.Credentials.EUID != 4321 || e.Fork.Child.Credentials.EUID != 4321 {
		t.Errorf("parent %+v, child %+v", e.Process.Credentials, e.Fork.Child.Credentials)
	}
}

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
	for range 1000 {
		c = w.counters(t)
		if c.EmittedExecs == c.Execs && c.EmittedForks+c.ForksFromOutside == c.Forks && c.EmittedExits+c.DuplicateExits == c.Exits {
			break
		}
		_ = exec.Command("/bin/true").Run() // lets the sensor's thread run
	}
	if c.EmittedExecs != c.Execs || c.EmittedForks+c.ForksFromOutside != c.Forks || c.EmittedExits+c.DuplicateExits != c.Exits {
		t.Errorf("emitted and counted differ: %+v", c)
	}
	if c.LostExecs+c.LostForks+c.LostExits+c.LostScratch+c.Recursions+c.Malformed+c.UnknownKinds != 0 {
		t.Errorf("something was lost: %+v", c)
	}
}

func TestProcessesFromBeforeAreThere(t *testing.T) {
	roottest.Require(t, needs)
	cmd := helper("fork_when_told")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
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

func TestPlatformIsInheritedAndMarkedLate(t *testing.T) {
	roottest.Require(t, needs)
	w := start(t, process.Config{})
	cmd := exec.Command("/bin/sh", "-c", `/bin/sh -c 'echo $$; exec sleep 1000' & echo $!; wait`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewScanner(out)
	said.Scan()
	var grandchild uint32
	_, _ = fmt.Sscan(said.Text(), &grandchild)
	defer cmd.Wait()                               //nolint:errcheck // ends with its child
	defer unix.Kill(int(grandchild), unix.SIGKILL) //nolint:errcheck // ends with the test
	w.fork(t, int(grandchild))
	child, me := uint32(cmd.Process.Pid), uint32(os.Getpid())
	if w.Platform(me) || w.Platform(child) || w.Platform(grandchild) {
		t.Fatal("marked before MarkPlatform")
	}
	w.MarkPlatform(me)
	if !w.Platform(me) || !w.Platform(child) || !w.Platform(grandchild) {
		t.Errorf("after MarkPlatform: self %v, child %v, grandchild %v", w.Platform(me), w.Platform(child), w.Platform(grandchild))
	}
	if w.Platform(1) || w.Platform(uint32(os.Getppid())) {
		t.Error("an ancestor belongs to the platform")
	}
	later := exec.Command("/bin/sh", "-c", "echo $$; sh -c 'echo $$; exec sleep 0'; true")
	text, err := later.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range strings.Fields(string(text)) {
		var pid uint32
		_, _ = fmt.Sscan(field, &pid)
		if !w.Platform(pid) {
			t.Errorf("descendant %d does not belong to the platform", pid)
		}
	}
}

func TestNeverAskEndsWithTheProgram(t *testing.T) {
	roottest.Require(t, needs)
	dir := t.TempDir()
	special := filepath.Join(dir, "special")
	copyFile(t, "/bin/sh", special)
	w := start(t, process.Config{NeverAsk: func(p *event.Process) bool { return p.Executable.Path == special }})
	script := fmt.Sprintf("read a; %[1]s & echo $!; read b; exec %[1]s", sleeper(t))
	cmd := &exec.Cmd{Path: special, Args: []string{"sh", "-c", script}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()         //nolint:errcheck // killed
	defer cmd.Process.Kill() //nolint:errcheck // ends with the test
	pid := uint32(cmd.Process.Pid)
	w.exec(t, int(pid)) // the mark is set before the event is emitted
	if !w.NeverAsk(pid) {
		t.Fatal("the never-ask program is asked")
	}
	_, _ = fmt.Fprintln(in)
	said := bufio.NewScanner(out)
	said.Scan()
	var child uint32
	_, _ = fmt.Sscan(said.Text(), &child)
	defer unix.Kill(int(child), unix.SIGKILL) //nolint:errcheck // ends with the test
	w.exec(t, int(child))
	if w.NeverAsk(child) {
		t.Error("the never-ask program's child is not asked")
	}
	_, _ = fmt.Fprintln(in)
	w.exec(t, int(pid))
	if w.NeverAsk(pid) {
		t.Error("the next program is not asked")
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

// The sensor's thread need not have seen an exec yet: the program before is not named for the one after.
func TestLookupNeverNamesTheProgramBefore(t *testing.T) {
	roottest.Require(t, needs)
	w := start(t, process.Config{})
	for range 20 {
		cmd := exec.Command("/bin/sh", "-c", "read a; exec "+sleeper(t))
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pid := cmd.Process.Pid
		before := w.exec(t, pid).Process
		_, _ = fmt.Fprintln(in)
		bufio.NewScanner(out).Scan() // the new program runs
		if p := w.Lookup(uint32(pid)); p != nil && p.Executable == before.Executable {
			t.Errorf("looked up as the shell, which it was before")
		}
		p, err := w.Load(uint32(pid))
		if err != nil || p.Executable.Path == before.Executable.Path || p.Key != before.Key {
			t.Errorf("loaded as %+v: %v", p, err)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}
