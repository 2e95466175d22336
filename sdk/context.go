package sdk

import (
	"context"
	"errors"
	"time"
)

// questionContext is the context of one OnQuestion call. Most handlers never wait, so the real context, its timer and its
// channel are made when somebody asks for them.
type questionContext struct{ q *Question }

var _ context.Context = questionContext{}

func (c questionContext) Deadline() (time.Time, bool) {
	t := c.q.Deadline()
	return t, !t.IsZero()
}

func (c questionContext) Done() <-chan struct{} { return c.q.context().Done() }

// Value is the real context's: the standard library finds the cause of an end through it.
func (c questionContext) Value(key any) any { return c.q.context().Value(key) }

func (c questionContext) Err() error {
	ctx := c.q.context()
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// context returns the real context, ended already if there is a reason.
func (q *Question) context() context.Context {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ctx != nil {
		return q.ctx
	}
	ctx, cancel := context.WithCancelCause(q.session.ctx)
	q.ctx, q.cancel = ctx, cancel
	if q.withdrawn {
		cancel(ErrWithdrawn)
	}
	if d := q.deadline.Load(); d != 0 {
		q.timer = time.AfterFunc(time.Duration(d-boottime()), func() { cancel(context.DeadlineExceeded) })
	}
	return ctx
}

// withdraw notes that nobody waits for the answer any more.
func (q *Question) withdraw() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.withdrawn = true
	if q.cancel != nil {
		q.cancel(ErrWithdrawn)
	}
}

func (q *Question) isWithdrawn() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.withdrawn
}

// release ends the context when the handler has returned.
func (q *Question) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.timer != nil {
		q.timer.Stop()
	}
	if q.cancel != nil {
		q.cancel(context.Canceled)
	}
}
