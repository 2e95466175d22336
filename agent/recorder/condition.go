package recorder

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"bailey/agent/health"

	"golang.org/x/sys/unix"
)

// calm is how long nothing must go wrong before the recorder is called well again: its health entry is an event, and so
// something to record.
const calm = 30 * time.Second

// condition is the recorder's health entry. Safe for concurrent use.
type condition struct {
	dir    string
	log    *slog.Logger
	health *health.Registry

	mu      sync.Mutex
	trouble error  // the disk's last, nil when it is over
	since   uint64 // when it failed last, nanoseconds since boot
	well    bool   // written since
	dropped uint64 // when events came too fast last; 0: never
	tight   bool
	damage  string // what the check at the start found
	torn    string
}

// failed notes an error of the disk.
func (c *condition) failed(err error, now uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.trouble == nil {
		c.log.Warn("events are not recorded", "path", c.dir, "err", err)
	}
	c.trouble, c.since, c.well = err, now, false
}

// wrote notes a success.
func (c *condition) wrote(tight bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.well, c.tight = true, tight
}

// slow notes that events were dropped because they came too fast.
func (c *condition) slow(now uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropped = max(now, 1)
}

// found notes what is wrong with what was recorded earlier.
func (c *condition) found(damage, torn string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.damage, c.torn = damage, torn
}

// tell sets the health entry.
func (c *condition) tell(now uint64) {
	c.mu.Lock()
	if c.trouble != nil && c.well && passed(now, c.since, calm) {
		c.trouble = nil
		c.log.Info("events are recorded again", "path", c.dir)
	}
	if c.dropped != 0 && passed(now, c.dropped, calm) {
		c.dropped = 0
	}
	e := c.entry()
	c.mu.Unlock()
	c.health.Set(e)
}

// entry makes the entry of what is worst. Caller holds mu.
func (c *condition) entry() health.Entry {
	e := health.Entry{Component: "recorder", Status: health.Degraded}
	switch {
	case c.trouble != nil:
		what, remedy := explain(c.trouble, c.dir)
		e.Summary, e.Remedy = "events are not recorded: "+what, remedy
	case c.dropped != 0:
		e.Summary = "some events are not recorded: they come faster than they can be taken"
		e.Remedy = "leave file events and forks out of recorder.kinds, or find out what floods: bailey history"
	case c.damage != "":
		e.Summary = "part of what was recorded earlier cannot be read: " + c.damage
		e.Remedy = "look for errors of the disk (dmesg); the rest is readable (bailey history), and this goes when the segments named are overwritten or removed"
	case c.tight:
		e.Summary = "the recorder keeps less than it may, because the file system of " + c.dir + " is nearly full"
		e.Remedy = "free space there; it takes more again by itself"
	default:
		e.Status, e.Summary = health.OK, "records events in "+c.dir
		if c.torn != "" {
			e.Summary += "; " + c.torn
		}
	}
	return e
}

// explain says what an error of the disk means and what to do about it.
func explain(err error, dir string) (what, remedy string) {
	again := "; recording goes on by itself"
	switch {
	case errors.Is(err, errReserve):
		return "the file system of " + dir + " is nearly full, and the recorder leaves the rest to others", "free space there, or set a smaller recorder.size" + again
	case errors.Is(err, unix.ENOSPC):
		return "no space or no inode is left on the file system of " + dir, "free space or files there (df, df -i)" + again
	case errors.Is(err, unix.EDQUOT):
		return "the disk quota of " + dir + " is used up", "raise it, or set a smaller recorder.size" + again
	case errors.Is(err, unix.EROFS):
		return dir + " is on a read-only file system", "find out why (dmesg), and mount it writable" + again
	case errors.Is(err, unix.EIO):
		return "the disk of " + dir + " has errors", "look for its errors (dmesg, smartctl)" + again
	case errors.Is(err, errGone):
		return "the open segment in " + dir + " was removed", "leave that directory to the agent" + again
	case errors.Is(err, fs.ErrPermission):
		return "the agent may not write in " + dir, "look for a security module or an attribute (lsattr) that forbids it" + again
	}
	return fmt.Sprintf("%v", err), "look at " + dir + again
}
