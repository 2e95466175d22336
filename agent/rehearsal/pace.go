package rehearsal

import (
	"context"
	"time"
)

// The agent's own part of a rehearsal, reading the past and asking, has the agent's priority: at a lower one it could be stopped while whoever answers the
// machine's questions waits for it. So it works for a moment, shorter than what the kernel lets others wait for a processor, and then leaves the
// processors to them for four times as long, up to a bound: a slow release must be asked everything, too.
const (
	works    = 500 * time.Microsecond
	share    = 4
	restMost = 4 * time.Millisecond
)

// pace says when. The zero value begins to work.
type pace struct{ since time.Time }

// rest waits if it has worked long enough. The error is of ctx.
func (p *pace) rest(ctx context.Context) error {
	now := time.Now()
	if p.since.IsZero() {
		p.since = now
	}
	worked := now.Sub(p.since)
	if worked < works {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(min(share*worked, restMost)):
	}
	p.since = time.Now()
	return nil
}
