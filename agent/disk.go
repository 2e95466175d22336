package agent

import (
	"context"
	"fmt"
	"time"

	"bailey/agent/health"

	"golang.org/x/sys/unix"
)

// diskEvery is how often the disk that holds the agent's state is looked at.
const diskEvery = 5 * time.Second

// Below this much the disk counts as full: what the agent writes comes in small files.
const (
	diskBytes  = 1 << 20
	diskInodes = 16
)

// watchDisk says when the disk below the state directory takes no more. The agent and its products go on without; what an
// operator changes, and what is recorded, does not last then.
func (a *Agent) watchDisk(ctx context.Context) error {
	tick := time.NewTicker(diskEvery)
	defer tick.Stop()
	for {
		a.health.Set(diskEntry(a.cfg.Agent.State))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func diskEntry(dir string) health.Entry {
	e := health.Entry{Component: "state", Status: health.Degraded}
	var st unix.Statfs_t
	switch err := unix.Statfs(dir, &st); {
	case err != nil:
		e.Summary, e.Remedy = fmt.Sprintf("the state directory %s cannot be looked at: %v", dir, err), "mount its disk again"
	case st.Flags&unix.ST_RDONLY != 0:
		e.Summary = fmt.Sprintf("the disk of the state directory %s is read-only: what runs goes on, no change will last", dir)
		e.Remedy = "look for the disk's fault in the kernel's log, repair it, and mount it for writing"
	case st.Bavail*uint64(st.Bsize) < diskBytes:
		e.Summary = fmt.Sprintf("no space is left on the disk of the state directory %s: what runs goes on, no change will last", dir)
		e.Remedy = "free some space there"
	case st.Files > 0 && st.Ffree < diskInodes:
		e.Summary = fmt.Sprintf("no space for further files is left on the disk of the state directory %s: what runs goes on, no change will last", dir)
		e.Remedy = "remove some files there"
	default:
		e.Status, e.Summary = health.OK, "the disk of the state directory takes what is written"
	}
	return e
}
