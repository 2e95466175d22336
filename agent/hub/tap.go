package hub

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"bailey/agent/event"
)

// ErrTapClosed says that a tap was closed.
var ErrTapClosed = errors.New("tap is closed")

// Tap is the agent's own look at the stream of events: for the command line and the recorder. It has no filter but kinds,
// and what its reader is too slow for is counted. Safe for concurrent use by one reader.
type Tap struct {
	hub     *Hub
	kinds   event.KindSet
	passive bool // it hears what others want, and makes nobody produce more
	ch      chan tapped
	done    chan struct{}
	dropped atomic.Uint64
	pending uint64 // dropped since the last event that was queued; guarded by the hub's publish lock
}

type tapped struct {
	e    *event.Event
	lost uint64
}

// Tap opens a tap with room for buffer events. Close it.
func (h *Hub) Tap(kinds event.KindSet, buffer int) *Tap {
	return h.open(&Tap{hub: h, kinds: kinds}, buffer)
}

// TapPassive opens a tap that counts as nobody's subscription: sensors produce nothing for its sake. It hears the kinds that
// are produced for somebody else, and what the agent itself says: verdicts of questions that were asked, findings, products
// and health. Close it.
func (h *Hub) TapPassive(kinds event.KindSet, buffer int) *Tap {
	return h.open(&Tap{hub: h, kinds: kinds, passive: true}, buffer)
}

func (h *Hub) open(t *Tap, buffer int) *Tap {
	t.ch, t.done = make(chan tapped, max(buffer, 1)), make(chan struct{})
	h.order.Lock()
	defer h.order.Unlock()
	h.rewrite(func(b *book) { b.taps = append(b.taps, t) })
	h.changed("")
	return t
}

// Close ends the tap; what it still holds can be read.
func (t *Tap) Close() {
	t.hub.order.Lock()
	defer t.hub.order.Unlock()
	i := slices.Index(t.hub.book.Load().taps, t)
	if i < 0 {
		return
	}
	t.hub.rewrite(func(b *book) { b.taps = slices.Delete(b.taps, i, i+1) })
	t.hub.changed("")
	close(t.done)
}

// Next returns the next event and how many were dropped just before it.
func (t *Tap) Next(ctx context.Context) (e *event.Event, lost uint64, err error) {
	select {
	case x := <-t.ch:
		return x.e, x.lost, nil
	default:
	}
	select {
	case x := <-t.ch:
		return x.e, x.lost, nil
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	case <-t.done:
		return nil, 0, ErrTapClosed
	}
}

// Poll returns the next event if there is one now. A reader that polls costs whoever publishes less than one that waits in
// Next, which has to be woken.
func (t *Tap) Poll() (e *event.Event, lost uint64, ok bool) {
	select {
	case x := <-t.ch:
		return x.e, x.lost, true
	default:
		return nil, 0, false
	}
}

// Dropped returns how many events this tap lost so far.
func (t *Tap) Dropped() uint64 { return t.dropped.Load() }

// offer queues e. Caller holds the hub's publish lock.
func (t *Tap) offer(e *event.Event) {
	if !t.kinds.Has(e.Kind) {
		return
	}
	select {
	case t.ch <- tapped{e, t.pending}:
		t.pending = 0
	default:
		t.pending++
		t.dropped.Add(1)
	}
}
