package killtree

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestKillEndsAProcessAndItsChildren(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sh", "-c", "sleep 300 & echo $!; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 32)
	n, err := out.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		t.Fatal(err)
	}
	Kill(cmd.Process.Pid)
	_ = cmd.Wait() // "killed" is what it says
	for end := time.Now().Add(5 * time.Second); running(child); {
		if time.Now().After(end) {
			t.Fatalf("child %d is still there", child)
		}
		time.Sleep(5 * time.Millisecond) //nolint:forbidigo // another process is waited for
	}
}

// running reports whether a process is there and no zombie.
func running(pid int) bool {
	if unix.Kill(pid, 0) != nil {
		return false
	}
	out, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && !strings.HasPrefix(strings.TrimSpace(string(out)), "Z")
}
