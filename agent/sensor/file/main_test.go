package file

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/internal/leakcheck"
)

const (
	envInside  = "BAILEY_FILE_TEST_INSIDE"
	envSubject = "BAILEY_FILE_TEST_SUBJECT"
)

// patience is the dead man's timer: a bug here can leave processes in open(2) for ever.
const patience = 4 * time.Minute

// TestMain runs the tests in a mount namespace of their own, so that nothing they mount or mark is anybody else's, under a
// parent that kills them if they hang. Subjects, the processes that are asked about, are this binary again.
func TestMain(m *testing.M) {
	if os.Getenv(envSubject) != "" {
		runtime.LockOSThread()
		subject()
		return
	}
	if dir := os.Getenv(envHolder); dir != "" {
		holdForEver(dir)
	}
	if os.Geteuid() != 0 || os.Getenv(envInside) != "" {
		leakcheck.Main(m)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), envInside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is the thread's
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "start the tests in their own mount namespace:", err)
		os.Exit(1)
	}
	deadMan := time.AfterFunc(patience, func() {
		fmt.Fprintln(os.Stderr, "the tests hang: killing them")
		_ = cmd.Process.Kill()
	})
	err := cmd.Wait()
	deadMan.Stop()
	var exit *exec.ExitError
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		os.Exit(exit.ExitCode())
	}
	os.Exit(1)
}
