package e2e

import (
	"context"
	"errors"
	"sync"
	"time"

	controlv1 "bailey/api/control/v1"
	productv1 "bailey/api/product/v1"
	"connectrpc.com/connect"
)

// tap collects the agent's events from now on.
type tap struct {
	mu     sync.Mutex
	events []*productv1.Event
	lost   uint64
	cancel context.CancelFunc
	done   chan struct{}
}

func (a *agent) tap(kinds ...string) *tap {
	a.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := a.client.Events(ctx, connect.NewRequest(&controlv1.EventsRequest{Kinds: kinds}))
	if err != nil {
		cancel()
		a.t.Fatal(err)
	}
	p := &tap{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for s.Receive() {
			p.mu.Lock()
			p.lost += s.Msg().GetLost()
			if e := s.Msg().GetEvent(); e != nil {
				p.events = append(p.events, e)
			}
			p.mu.Unlock()
		}
	}()
	a.t.Cleanup(func() { cancel(); <-p.done; _ = s.Close() })
	return p
}

func (p *tap) all() []*productv1.Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*productv1.Event(nil), p.events...)
}

// find waits for an event that f accepts.
func (a *agent) find(p *tap, what string, f func(*productv1.Event) bool) *productv1.Event {
	a.t.Helper()
	var found *productv1.Event
	a.eventually("the event "+what, 10*time.Second, func() error {
		for _, e := range p.all() {
			if f(e) {
				found = e
				return nil
			}
		}
		return errors.New("not seen")
	})
	return found
}
