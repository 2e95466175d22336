package question_test

import (
	"os/exec"
	"runtime"
	"testing"

	"bailey/agent/keeper"

	"golang.org/x/sys/unix"
)

// prefer gives this process the priority that the keeper starts an agent with, until b ends.
func prefer(b *testing.B) {
	b.Helper()
	set := func(nice int) {
		eachThread(b, func(tid int) { _ = unix.Setpriority(unix.PRIO_PROCESS, tid, nice) })
	}
	set(keeper.AgentNice)
	b.Cleanup(func() { set(0) })
}

// ordinary starts a process with the priority that products and everybody else have.
func ordinary(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 0); err != nil {
		return err
	}
	defer func() { _ = unix.Setpriority(unix.PRIO_PROCESS, 0, keeper.AgentNice) }()
	return cmd.Start()
}
