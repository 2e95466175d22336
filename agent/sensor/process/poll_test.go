package process_test

import (
	"bufio"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/sensor/process"
)

// Without BPF the sensor still says what lives long enough, and that it is degraded. Needs no root.
func TestPollingSaysWhatItCan(t *testing.T) {
	w := start(t, process.Config{WithoutBPF: true, PollInterval: 20 * time.Millisecond})
	entries := w.health.List()
	if len(entries) != 1 || entries[0].Component != process.Component || entries[0].Status != health.Degraded || entries[0].Remedy == "" {
		t.Errorf("health: %+v", entries)
	}
	dir := t.TempDir()
	cmd := exec.Command("/bin/sleep", "1000", "1000")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	e := w.exec(t, pid)
	want := &event.ExecDetail{
		Argv: []string{"/bin/sleep", "1000", "1000"}, Argc: 3, CWD: dir,
		Previous: e.Process.Key, PreviousExe: identity(t, "/proc/self/exe").Path,
	}
	if diff := cmp.Diff(want, e.Exec); diff != "" {
		t.Errorf("exec (-want +got):\n%s", diff)
	}
	if e.Process.Executable != identity(t, "/bin/sleep") || e.Process.Parent.Start == 0 {
		t.Errorf("process: %+v", e.Process)
	}
	if got := w.Lookup(uint32(pid)); got == nil || got.Key != e.Process.Key {
		t.Errorf("looked up as %v", got)
	}
	if up := w.Ancestors(e.Process.Key); len(up) == 0 || up[0].Key != e.Process.Parent {
		t.Errorf("ancestors: %v", up)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if exit := w.exit(t, pid); exit.Exit.Code != -1 || exit.Process.Key != e.Process.Key {
		t.Errorf("exit: %+v of %v", exit.Exit, exit.Process.Key)
	}
}

// A program that is executed by itself is another one; there are systems where all commands are one file.
func TestPollingSeesTheSameFileExecuted(t *testing.T) {
	w := start(t, process.Config{WithoutBPF: true, PollInterval: 20 * time.Millisecond})
	cmd := helper("exec_same")
	in, out := begin(t, cmd)
	defer end([]*exec.Cmd{cmd})
	pid, own := cmd.Process.Pid, identity(t, "/proc/self/exe")
	if !bufio.NewScanner(out).Scan() {
		t.Fatal("the helper has ended")
	}
	first := w.exec(t, pid) // of the file that its parent is from, too
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	second := w.exec(t, pid)
	if got := second.Exec.Argv; len(got) != 1 || got[0] != "again" || second.Exec.PreviousExe != own.Path {
		t.Errorf("executed: %+v", second.Exec)
	}
	if first.Process.Executable != own || second.Process.Executable != own || second.Process.Key != first.Process.Key {
		t.Errorf("%+v, then %+v", first.Process, second.Process)
	}
}

func TestPollingMarksThePlatform(t *testing.T) {
	w := start(t, process.Config{WithoutBPF: true, PollInterval: 20 * time.Millisecond})
	cmd := exec.Command("/bin/sh", "-c", "read a; "+sleeper(t)+" & read b; kill $!")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := uint32(cmd.Process.Pid)
	w.exec(t, int(pid))
	if err := w.MarkPlatform(pid); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	child := w.until(t, "the child", func(e *event.Event) bool { return e.Kind == event.Exec && e.Process.Parent.PID == pid }).Process.Key.PID
	if !w.Platform(pid) || !w.Platform(child) || w.Platform(1) {
		t.Errorf("platform: marked %v, its child %v, pid 1 %v", w.Platform(pid), w.Platform(child), w.Platform(1))
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	_ = cmd.Wait()
	w.exit(t, int(child))
	if w.Platform(child) {
		t.Error("a dead pid belongs to the platform")
	}
}

func TestLoadFindsWhatPollingHasNotSeen(t *testing.T) {
	w := start(t, process.Config{WithoutBPF: true, PollInterval: time.Hour})
	cmd := exec.Command("/bin/sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := uint32(cmd.Process.Pid)
	if p := w.Lookup(pid); p != nil {
		t.Errorf("looked up as %v without having been read", p)
	}
	p, err := w.Load(pid)
	if err != nil || p.Key.PID != pid {
		t.Errorf("loaded as %v: %v", p, err)
	}
	if again := w.Lookup(pid); again == nil || p != nil && again.Key != p.Key {
		t.Errorf("looked up as %v after Load", again)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if p, err := w.Load(1<<22 + 5); err == nil {
		t.Errorf("a pid that cannot be was loaded as %v", p)
	}
}
