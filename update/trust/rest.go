package trust

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	firstRest = 10 * time.Second
	lastRest  = 15 * time.Minute
	longest   = time.Hour // that a server can ask for
)

// Rest is how long to leave alone what did not answer so many times in a row.
func Rest(failed int) time.Duration {
	d := firstRest
	for range failed - 1 {
		if d *= 3; d >= lastRest {
			return lastRest
		}
	}
	return d
}

// tree is a source that is left alone for a while when it does not answer: longer each time, and as long as it asks for. It is safe for concurrent use.
type tree struct {
	source
	now func() time.Time

	mu     sync.Mutex
	failed int // times in a row
	until  time.Time
	why    error
}

// open asks the source, if it is not to be left alone.
func (t *tree) open(ctx context.Context, name string, from int64, tag string) (*answer, error) {
	if err := t.resting(name); err != nil {
		return nil, err
	}
	a, err := t.source.open(ctx, name, from, tag)
	return a, t.missed(ctx, err, ErrUnavailable)
}

func (t *tree) resting(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.now().Before(t.until) {
		return nil
	}
	return refuse(name, ErrUnavailable, "not asked again before %s: %v", t.until.UTC().Format(time.RFC3339), t.why)
}

// silent takes note that the source did not answer.
func (t *tree) silent(why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed++
	rest := Rest(t.failed)
	var r *Refusal
	if errors.As(why, &r) && r.after > rest { // so do all others that it said it to
		rest = r.after + time.Duration(rand.Int64N(int64(r.after)/5+1))
	}
	t.until, t.why = t.now().Add(rest), why
}

// missed takes note of why something did not come of asking the source, if it is of one of these classes, and returns it.
func (t *tree) missed(ctx context.Context, err error, classes ...error) error {
	is := func(class error) bool { return errors.Is(err, class) }
	if ctx.Err() == nil && slices.ContainsFunc(classes, is) && t.resting("") == nil {
		t.silent(err)
	}
	return err
}

// sound takes note that the source has what it should.
func (t *tree) sound() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = 0
}

func (t *tree) failing() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed > 0
}

func (t *tree) hurry() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.until = time.Time{}
}

// Hurry has mirrors asked again that are left alone, at the next look. It is safe for concurrent use.
func (c *Client) Hurry() {
	for _, m := range c.mirrors {
		m.metadata.hurry()
		m.targets.hurry()
	}
}

// retryAfter is how long a server asks to be left alone, by its own clock.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, longest)
	}
	at, err := http.ParseTime(text)
	now, nerr := http.ParseTime(h.Get("Date"))
	if err != nil || nerr != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), longest)
}
