package process_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/agent/sensor/process"
	"bailey/internal/roottest"
)

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
	if err := w.MarkPlatform(me); err != nil {
		t.Fatal(err)
	}
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
	in, out := begin(t, cmd)
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

// The sensor's thread need not have seen an exec yet: the program before is not named for the one after.
func TestLookupNeverNamesTheProgramBefore(t *testing.T) {
	roottest.Require(t, needs)
	w := start(t, process.Config{})
	for range 20 {
		cmd := exec.Command("/bin/sh", "-c", "read a; exec "+sleeper(t))
		in, out := begin(t, cmd)
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
