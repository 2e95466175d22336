package rehearsal

import (
	"context"
	"time"
)

// The agent's own part of a rehearsal, reading the past and asking, has the agent's priority: at a lower one it could be stopped while whoever answers the
// machine's questions waits for it. So it works for a moment, shorter than what the kernel lets others wait for a processor, and then leaves the
// processors to them for many times as long, so that few of a machine's opens and execs happen while it works. One that has much to do hurries after a
// while, and no rest exceeds a bound: a slow release must be asked everything, too.
const (
	works    = 100 * time.Microsecond
	share    = 20
	hurried  = 4 // the share of one that hurries
	restMost = 3 * time.Millisecond
)

// pace says when. It begins to work at its first rest.
type pace struct {
	patience     time.Duration // after which it hurries
	begun, since time.Time
}

// rest waits if it has worked long enough. The error is of ctx.
func (p *pace) rest(ctx context.Context) error {
	now := time.Now()
	if p.begun.IsZero() {
		p.begun, p.since = now, now
	}
	worked := now.Sub(p.since)
	if worked < works {
		return nil
	}
	times := time.Duration(share)
	if now.Sub(p.begun) > p.patience {
		times = hurried
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(min(times*worked, restMost)):
	}
	p.since = time.Now()
	return nil
}
