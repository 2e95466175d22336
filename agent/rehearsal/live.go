package rehearsal

import (
	"context"
	"errors"
	"fmt"
)

// live watches the release for some more time: some crash a while after their start, some never stop to grow, and some leave a state behind
// that they cannot start with.
func (r *rehearsal) live(ctx context.Context) error {
	r.progress("watching", len(r.steps), len(r.steps))
	if err := r.pause(ctx, r.cfg.Limits.Linger); err != nil {
		return err
	}
	r.weigh()
	err := r.again(ctx)
	var bad *failure
	if errors.As(err, &bad) {
		return failed("started once more, %s", bad.reason)
	}
	return err
}

// again starts the release a second time, as after a boot, and lets it live for a moment.
func (r *rehearsal) again(ctx context.Context) error {
	first := r.peer
	defer func() { r.peer = first }()
	r.peer = newPeer(r.cfg.Welcome)
	if err := r.trial.Again(r.peer); err != nil {
		return fmt.Errorf("start it once more: %w", err)
	}
	if err := r.begins(ctx); err != nil {
		return err
	}
	if err := r.pause(ctx, r.cfg.Limits.Again); err != nil {
		return err
	}
	if n, last := r.peer.conn.Faults(); n > 0 {
		return failed("it broke the protocol %d times, the last time: %v", n, last)
	}
	return nil
}
