package journal

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockPatience is how long the agent before may take to write its last lines.
const lockPatience = 10 * time.Second

// lock waits until no other agent writes to the journal: during an upgrade the old one writes its last lines while the new one
// serves already. What comes meanwhile waits in the queue. Without a directory there is nothing to share; writing finds out why.
func lock(ctx context.Context, dir string) (unlock func()) {
	_ = os.MkdirAll(dir, 0o700)
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return func() {}
	}
	retry := time.NewTicker(2 * time.Millisecond)
	defer retry.Stop()
	for end := time.Now().Add(lockPatience); unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return func() { _ = f.Close() }
		case <-retry.C:
		}
	}
	return func() { _ = f.Close() }
}
