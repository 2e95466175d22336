package trust

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Pace is when a transfer counts as too slow, and how fast it may be. A zero field is its default.
type Pace struct {
	Rate   int64         // bytes a second of a target at most; no limit
	Window time.Duration // within which Bytes must come; 30 s
	Bytes  int64         // 16 KiB, or what is left of the file
	Small  time.Duration // for a whole file of metadata; 1 min
}

func (p Pace) orDefault() Pace {
	if p.Window == 0 {
		p.Window = 30 * time.Second
	}
	if p.Bytes == 0 {
		p.Bytes = 16 << 10
	}
	if p.Small == 0 {
		p.Small = time.Minute
	}
	return p
}

// transfer reads one file with a watch on its pace. Close ends the watch.
type transfer struct {
	*answer
	name  string
	ctx   context.Context
	end   context.CancelCauseFunc
	pace  Pace
	timer *time.Timer
	since int64 // bytes since the timer was set
	begun time.Time
	sent  int64
}

// begin opens a file; whatever comes too slowly ends with ErrSlow.
func begin(ctx context.Context, s source, name string, from int64, tag string, p Pace) (*transfer, error) {
	ctx, end := context.WithCancelCause(ctx)
	t := &transfer{name: name, ctx: ctx, end: end, pace: p, begun: time.Now()}
	t.timer = time.AfterFunc(p.Window, func() { end(fmt.Errorf("%w: less than %d bytes in %s", ErrSlow, p.Bytes, p.Window)) })
	a, err := s.open(ctx, name, from, tag)
	if err != nil {
		t.timer.Stop()
		end(nil)
		return nil, err
	}
	t.answer = a
	return t, nil
}

func (t *transfer) Read(b []byte) (int, error) {
	if t.pace.Rate > 0 {
		b = b[:min(int64(len(b)), max(t.pace.Rate/8, 512))]
		t.hold()
	}
	n, err := t.body.Read(b)
	t.sent += int64(n)
	if t.since += int64(n); t.since >= t.pace.Bytes {
		t.since = 0
		t.timer.Reset(t.pace.Window)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = refuse(t.name, failed(t.ctx, err), "%v", errors.Join(err, context.Cause(t.ctx)))
	}
	return n, err
}

// hold waits until what was read is not more than the rate allows. That is not the mirror's slowness, so the watch rests.
func (t *transfer) hold() {
	ahead := time.Duration(float64(t.sent)/float64(t.pace.Rate)*float64(time.Second)) - time.Since(t.begun)
	if ahead <= 0 || !t.timer.Stop() {
		return
	}
	wait := time.NewTimer(ahead)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-t.ctx.Done(): // the next read says so
	}
	t.timer.Reset(t.pace.Window)
}

func (t *transfer) Close() {
	t.timer.Stop()
	if t.body != nil {
		_ = t.body.Close()
	}
	t.end(nil)
}

// small reads a whole file of at most limit bytes. It is nil if the tag still holds.
func small(ctx context.Context, s source, name string, limit int64, tag string, p Pace) (text []byte, newTag string, err error) {
	p.Rate = 0
	ctx, stop := context.WithTimeoutCause(ctx, p.Small, ErrSlow)
	defer stop()
	t, err := begin(ctx, s, name, 0, tag, p)
	if err != nil {
		return nil, "", err
	}
	defer t.Close()
	if t.same {
		return nil, t.tag, nil
	}
	text, err = io.ReadAll(io.LimitReader(t, limit+1))
	if err != nil {
		return nil, "", err
	}
	if int64(len(text)) > limit {
		return nil, "", refuse(name, ErrSize, "more than %d bytes", limit)
	}
	return text, t.tag, nil
}
