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
	products map[string]chan struct{} // closed when ready
}

func newReadiness() *readiness { return &readiness{products: map[string]chan struct{}{}} }

// begin says that a product was attached, end that it is gone.
func (r *readiness) begin(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.products[name] = make(chan struct{})
}

func (r *readiness) end(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.products, name)
}

// ready says that an attached product is asked from now on.
func (r *readiness) ready(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ch, ok := r.products[name]; ok && !closed(ch) {
		close(ch)
	}
}

func (r *readiness) is(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch, ok := r.products[name]
	return ok && closed(ch)
}

// readyPatience is how long a command waits for a product that runs and has not subscribed.
const readyPatience = 5 * time.Second

// wait returns when an attached product is ready, ctx ends or readyPatience is over: a product need not subscribe.
func (r *readiness) wait(ctx context.Context, name string) {
	r.mu.Lock()
	ch, ok := r.products[name]
	r.mu.Unlock()
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
