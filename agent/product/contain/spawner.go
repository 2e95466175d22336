package contain

import (
	"context"
	"errors"
	"os/exec"
	"runtime"

	"bailey/internal/launch"
)

// Spawner starts helpers from one operating system thread that lives as long as Run: the kernel's "kill me when my parent
// dies" means the parent's thread, and the Go runtime ends threads when it likes. Safe for concurrent use.
type Spawner struct {
	jobs chan func()
	done chan struct{}
}

// ErrStopped says that the spawner does not run.
var ErrStopped = errors.New("the agent is stopping")

// NewSpawner returns a spawner that starts nothing before Run.
func NewSpawner() *Spawner { return &Spawner{jobs: make(chan func()), done: make(chan struct{})} }

// Run serves until ctx ends. When it returns, the kernel kills every helper that is left. It runs once.
func (s *Spawner) Run(ctx context.Context) {
	runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
	defer close(s.done)
	for {
		select {
		case <-ctx.Done():
			return
		case job := <-s.jobs:
			job()
		}
	}
}

func (s *Spawner) start(cmd *exec.Cmd) error {
	result := make(chan error, 1)
	select {
	case s.jobs <- func() { result <- launch.Start(cmd) }:
		return <-result
	case <-s.done:
		return ErrStopped
	}
}
