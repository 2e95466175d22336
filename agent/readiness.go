package agent

import (
	"context"
	"sync"
	"time"
)

// readiness knows which running products have subscribed, with the kernel's marks set accordingly: from then on they are
// asked. A product that is only running is not.
type readiness struct {
	mu       sync.Mutex
	products map[attached]chan struct{} // closed when ready
}

// attached is a product that was attached to the hub. Its name changes when it takes another's place.
type attached interface{ Name() string }

func newReadiness() *readiness { return &readiness{products: map[attached]chan struct{}{}} }

// begin says that a product was attached, end that it is gone.
func (r *readiness) begin(p attached) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.products[p] = make(chan struct{})
}

func (r *readiness) end(p attached) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.products, p)
}

// ready says that an attached product is asked from now on.
func (r *readiness) ready(p attached) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ch, ok := r.products[p]; ok && !closed(ch) {
		close(ch)
	}
}

func (r *readiness) is(name string) bool {
	ch, ok := r.of(name)
	return ok && closed(ch)
}

// of finds what is closed when the product that has a name now is ready.
func (r *readiness) of(name string) (chan struct{}, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, ch := range r.products {
		if p.Name() == name {
			return ch, true
		}
	}
	return nil, false
}

// readyPatience is how long a command waits for a product that runs and has not subscribed.
const readyPatience = 5 * time.Second

// wait returns when an attached product is ready, ctx ends or readyPatience is over: a product need not subscribe.
func (r *readiness) wait(ctx context.Context, name string) {
	ch, ok := r.of(name)
	if !ok {
		return
	}
	patience := time.NewTimer(readyPatience)
	defer patience.Stop()
	select {
	case <-ch:
	case <-ctx.Done():
	case <-patience.C:
	}
}

func closed(ch chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
