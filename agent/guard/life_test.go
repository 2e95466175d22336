package guard

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"bailey/internal/bpffs"
)

// sleeper starts a process to protect, which is no child of the victim's.
func sleeper(t *testing.T, s *scene) *exec.Cmd {
	t.Helper()
	cmd := s.helper("sleep")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !bufio.NewScanner(out).Scan() {
		t.Fatal("the sleeper does not sleep")
	}
	return cmd
}

// TestGuardOutlivesTheAgent: the agent is killed by the kernel, by its own hand and for want of memory; everything is refused while
// nobody of the platform lives, and the next agent adopts the guard and hears what was tried meanwhile.
func TestGuardOutlivesTheAgent(t *testing.T) {
	needsVM(t)
	s := newScene(t, true)
	product := sleeper(t, s)
	s.order(t, fmt.Sprintf("protect_process %d", product.Process.Pid))
	for _, death := range []string{"die", "use_memory"} {
		_, _ = fmt.Fprintln(s.in, death)
		if err := s.cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("%s: the victim ended with %v", death, err)
		}
		// An inode that nobody has open is forgotten, and what is kept in it with it.
		allowed(t, "drop caches", os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0))
		refused(t, "unlink", os.Remove(s.Config()))
		refused(t, "write", writeAt(s.Deep, 0, "x"))
		refused(t, "rename above", os.Rename(s.Above, s.Above+".old"))
		refused(t, "remove pins", os.RemoveAll(s.Pins))
		refused(t, "unmount the pins", unix.Unmount("/sys/fs/bpf", unix.MNT_DETACH))
		refused(t, "unmount /sys", unix.Unmount("/sys", unix.MNT_DETACH))
		refused(t, "switch BPF LSM off", os.WriteFile("/proc/sys/kernel/ftrace_enabled", []byte("0"), 0))
		refused(t, "write the program", writeAt(s.Program, 0, "x"))
		refused(t, "kill a product", product.Process.Kill())
		// Not by this process: the service manager, which it stands in for, loads such programs for its own services.
		if out, _ := s.helper("own_lsm_program").Output(); len(out) > 0 {
			t.Errorf("load a judge: %s", out)
		}

		// Not by hand: with arguments of an attacker's choice it would be the attacker's.
		byHand := *s
		if err := byHand.startVictimIn(s.Other); err == nil || !strings.Contains(err.Error(), ErrNotTrusted.Error()) {
			t.Errorf("started by hand: %v, want %v", err, ErrNotTrusted)
		}
		_ = byHand.in.Close()
		_ = byHand.cmd.Wait()

		// A service manager makes a new control group for each start.
		allowed(t, "remove the service's control group", os.Remove(s.Cgroup))
		if err := s.makeCgroup(); err != nil {
			t.Fatal(err)
		}
		if err := s.startVictim(); err != nil {
			t.Fatalf("the next agent: %v\n%s", err, s.logs.String())
		}
		if !s.Hello.Adopted {
			t.Error("the next agent did not adopt the guard")
		}
		missing := []string{"inode_unlink", "file_open", "inode_rename", "sb_umount", "sysctl", "task_kill", "bpf"}
		for end := time.Now().Add(20 * time.Second); len(missing) > 0 && time.Now().Before(end); {
			var some []Attempt
			if err := s.tell("attempts", &some); err != nil {
				t.Fatal(err)
			}
			for _, a := range some {
				if a.Refused && (a.Hook.String() == "bpf" || a.PID == uint32(os.Getpid())) {
					missing = slices.DeleteFunc(missing, func(hook string) bool { return hook == a.Hook.String() })
				}
			}
			time.Sleep(50 * time.Millisecond) //nolint:forbidigo // it reads the ring meanwhile
		}
		if len(missing) > 0 {
			t.Errorf("the next agent was not told of %v", missing)
		}
		refused(t, "freeze the new control group", os.WriteFile(s.Cgroup+"/cgroup.freeze", []byte("1"), 0))
		s.order(t, "write "+s.Config())
	}
	s.end(t)
	allowed(t, "kill a product without a guard", product.Process.Kill())
	_ = product.Wait()
}

// TestLeave: an agent that leaves its guard to a successor leaves it in force.
func TestLeave(t *testing.T) {
	needsVM(t)
	s := newScene(t, true)
	s.order(t, "leave")
	_ = s.cmd.Wait()
	refused(t, "unlink", os.Remove(s.Config()))
	if err := s.startVictim(); err != nil {
		t.Fatal(err)
	}
	s.end(t)
}

func TestUnlock(t *testing.T) {
	needsVM(t)
	s := newScene(t, true)
	refused(t, "locked", os.Chmod(s.Config(), 0o640))
	s.order(t, "unlock 1h")
	allowed(t, "unlocked", os.Chmod(s.Config(), 0o640))
	s.order(t, "relock")
	refused(t, "locked again", os.Chmod(s.Config(), 0o600))
	// The time is the kernel's own since boot: no clock that can be set moves it, and nobody need be there.
	s.order(t, "unlock 1500ms")
	allowed(t, "unlocked for a moment", os.Chmod(s.Config(), 0o600))
	_, err := unix.Adjtimex(&unix.Timex{Modes: 0x100 /* ADJ_SETOFFSET */, Time: unix.Timeval{Sec: -3600}})
	allowed(t, "set the clock back", err)
	_, _ = fmt.Fprintln(s.in, "die")
	_ = s.cmd.Wait()
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) { //nolint:forbidigo // the kernel locks by itself
		if errors.Is(os.Chmod(s.Config(), 0o640), os.ErrPermission) {
			break
		}
		if time.Now().After(until) {
			t.Fatal("the guard does not lock itself")
		}
	}
	_, err = unix.Adjtimex(&unix.Timex{Modes: 0x100, Time: unix.Timeval{Sec: 3600}})
	allowed(t, "set the clock forward", err)
	s.end(t)
}

// TestShutdown: when the service manager executes the machine's last program, nothing is refused any more.
func TestShutdown(t *testing.T) {
	needsVM(t)
	dir := t.TempDir()
	last := filepath.Join(dir, "busybox")
	if err := exec.Command("cp", "/bin/busybox", last).Run(); err != nil {
		t.Fatal(err)
	}
	manager := exec.Command("/bin/sh", "-c", `read x; [ -n "$x" ] && exec "$0" "$@"`, last, "sleep", "100")
	manager.Stderr = os.Stderr
	in, err := manager.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := manager.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = manager.Process.Kill(), manager.Wait() }()
	s := newScene(t, true, func(s *scene) { s.Manager, s.Shutdown = manager.Process.Pid, last })
	refused(t, "before", os.Chmod(s.Config(), 0o640))
	allowed(t, "somebody else executes the last program", exec.Command(last, "true").Run())
	refused(t, "after somebody else did", os.Chmod(s.Config(), 0o640))
	if _, err := fmt.Fprintln(in, "go"); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err = os.Chmod(s.Config(), 0o640); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond) //nolint:forbidigo // until it has executed
	}
	allowed(t, "at shutdown", err)
	allowed(t, "signals at shutdown", unix.Kill(s.PID, unix.SIGTERM))
	_ = s.cmd.Wait()
	s.Guarded = false // it has ended
	s.remove(t)
}

// TestUnfinishedPins: an agent that was killed while it pinned leaves something that is no guard.
func TestUnfinishedPins(t *testing.T) {
	needsVM(t)
	s := newScene(t, true, func(s *scene) {
		if err := os.MkdirAll(s.Pins+"/"+bpffs.Unfinished+"0123", 0o700); err != nil {
			t.Fatal(err)
		}
	})
	entries, err := os.ReadDir(s.Pins)
	if err != nil || len(entries) != 1 || !strings.HasPrefix(entries[0].Name(), completePrefix) {
		t.Errorf("pins: %v, %v; want one complete guard", entries, err)
	}
	if s.Hello.Adopted {
		t.Error("it adopted what was not finished")
	}
	s.end(t)
}

// TestOthersMayRead: tools that list all BPF programs, maps and links go on to work.
func TestOthersMayRead(t *testing.T) {
	needsVM(t)
	s := newScene(t, true)
	n := 0
	for id := ebpf.ProgramID(0); ; n++ {
		next, err := ebpf.ProgramGetNextID(id)
		if err != nil {
			break
		}
		p, err := ebpf.NewProgramFromID(next)
		if err != nil {
			t.Fatalf("program %d: %v", next, err)
		}
		_ = p.Close()
		id = next
	}
	if n < 30 {
		t.Errorf("%d programs are listed", n)
	}
	procs, err := os.ReadFile(s.Cgroup + "/cgroup.procs")
	allowed(t, "read the control group", err)
	if !strings.Contains(string(procs), fmt.Sprint(s.PID)) {
		t.Errorf("the control group holds %q", procs)
	}
	_, err = os.ReadFile(s.Config())
	allowed(t, "read a protected file", err)
	_, err = os.ReadFile(s.proc("status"))
	allowed(t, "read the state of the agent", err)
	allowed(t, "is it there", unix.Kill(s.PID, 0))
	allowed(t, "go on", unix.Kill(s.PID, unix.SIGCONT))
	s.end(t)
}

// TestOverlay: what stat(2) says of a file's device is not what the kernel has inside.
func TestOverlay(t *testing.T) {
	needsVM(t)
	s := newScene(t, true)
	root := t.TempDir()
	for _, dir := range []string{"lower/state", "upper", "work", "merged"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	merged := filepath.Join(root, "merged")
	if err := unix.Mount("overlay", merged, "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", root)); err != nil {
		t.Fatal(err)
	}
	defer func() { allowed(t, "unmount", unix.Unmount(merged, 0)) }()
	allowed(t, "before", os.WriteFile(merged+"/state/a", nil, 0o600))
	s.order(t, "protect "+merged+"/state")
	refused(t, "create", os.WriteFile(merged+"/state/b", nil, 0o600))
	refused(t, "write", os.WriteFile(merged+"/state/a", nil, 0o600))
	refused(t, "unlink", os.Remove(merged+"/state/a"))
	s.end(t)
	allowed(t, "after", os.Remove(merged+"/state/a"))
}

// TestFloodIsCut: a culprit that tries in a loop is reported now and then, with the number of tries.
func TestFloodIsCut(t *testing.T) {
	needsVM(t)
	s := newScene(t, true)
	begin := time.Now()
	const tries = 2000
	for range tries {
		refused(t, "chmod", os.Chmod(s.Config(), 0o640))
	}
	took := time.Since(begin)
	time.Sleep(200 * time.Millisecond) //nolint:forbidigo // beyond the pause: the next is reported
	refused(t, "chmod", os.Chmod(s.Config(), 0o640))
	var seen []Attempt
	var sum uint64
	for range 50 {
		var some []Attempt
		if err := s.tell("attempts", &some); err != nil {
			t.Fatal(err)
		}
		seen = append(seen, some...)
		sum = 0
		for _, a := range seen {
			sum += 1 + a.Suppressed
		}
		if sum > tries {
			break
		}
		time.Sleep(20 * time.Millisecond) //nolint:forbidigo // it reads the ring meanwhile
	}
	if most := int(took/(100*time.Millisecond)) + 3; sum != tries+1 || len(seen) > most {
		t.Errorf("%d reports of %d attempts in %v, want at most %d of %d", len(seen), sum, took, most, tries+1)
	}
	s.end(t)
}
