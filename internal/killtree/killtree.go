// Package killtree ends an agent for good in an emergency: the keeper, which would start its agent again, and the agent. It
// is for the dead-man processes of tests and of the demo, not a way to stop an agent.
//
// Invariant: it opens nothing but procfs, which is never marked, so it works while every other open on the machine waits.
package killtree

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Kill kills a process and its children. The process is stopped first, so that it starts no other child meanwhile.
func Kill(pid int) {
	if pid <= 1 {
		return
	}
	_ = unix.Kill(pid, unix.SIGSTOP)
	text := children(pid)
	_ = unix.Kill(pid, unix.SIGKILL)
	for _, word := range strings.Fields(text) {
		if child, err := strconv.Atoi(word); err == nil && child > 1 {
			_ = unix.Kill(child, unix.SIGKILL)
		}
	}
}

// children returns the children of all threads, as the kernel lists them.
func children(pid int) string {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	var out strings.Builder
	for _, t := range tasks {
		text, err := os.ReadFile(dir + "/" + t.Name() + "/children")
		if err == nil {
			out.Write(text)
			out.WriteByte(' ')
		}
	}
	return out.String()
}
