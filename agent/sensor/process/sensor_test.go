package process_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
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
	defer deleted.Close()
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("in_memory", 0)
	if err != nil {
		t.Fatal(err)
	}
	memory := os.NewFile(uintptr(fd), "in_memory")
	defer memory.Close()
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

// The mount namespace is known of what was there before, of a child that enters one at its birth, and of a program that is
// executed after entering one.
func TestMountNamespaceIsNamed(t *testing.T) {
	roottest.Require(t, needs+" and makes a mount namespace")
	namespace := func(pid int) uint64 {
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/mnt", pid), &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	own := namespace(os.Getpid())
	for _, without := range []bool{false, true} {
		t.Run(fmt.Sprintf("without_bpf_%v", without), func(t *testing.T) {
			w := start(t, process.Config{WithoutBPF: without, PollInterval: 20 * time.Millisecond})
			if p := w.Lookup(uint32(os.Getpid())); p == nil || p.MountNamespace != own {
				t.Errorf("from before: %+v, want %d", p, own)
			}
			for name, cmd := range map[string]*exec.Cmd{"born": exec.Command("/bin/sleep", "1000"), "entered": exec.Command("/usr/bin/unshare", "-m", "/bin/sleep", "1000")} {
				if name == "born" {
					cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				defer end([]*exec.Cmd{cmd})
				e := w.until(t, name, func(e *event.Event) bool {
					return e.Kind == event.Exec && e.Process.Key.PID == uint32(cmd.Process.Pid) && e.Process.Comm == "sleep"
				})
				if want := namespace(cmd.Process.Pid); e.Process.MountNamespace != want || want == own {
					t.Errorf("%s: %d, want %d; this one's is %d", name, e.Process.MountNamespace, want, own)
				}
				if without || name != "born" {
					continue
				}
				w.rewind()
				if fork := w.fork(t, cmd.Process.Pid); fork.Fork.Child.MountNamespace != e.Process.MountNamespace || fork.Process.MountNamespace != own {
					t.Errorf("at birth: child %d, parent %d", fork.Fork.Child.MountNamespace, fork.Process.MountNamespace)
				}
			}
		})
	}
}
