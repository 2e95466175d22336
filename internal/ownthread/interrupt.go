package ownthread

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Interrupt makes every blocking system call of this process begin again: whoever is to stop can then see that, or meet a
// timeout that was set meanwhile. It costs each thread one signal that Go's runtime sends itself all the time (SIGURG,
// with which it preempts) and that no call notices for longer than the restart takes.
func Interrupt() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("list own threads: %w", err)
	}
	pid := os.Getpid()
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		_ = unix.Tgkill(pid, tid, unix.SIGURG) // one that has ended waits for nothing
	}
	return nil
}
