package rig

import (
	"context"
	"errors"
	"sync"
	"time"

	controlv1 "bailey/api/control/v1"
	productv1 "bailey/api/product/v1"

	"connectrpc.com/connect"
)

// Tap collects the agent's events from when it was opened until the test ends. Safe for concurrent use.
type Tap struct {
	mu     sync.Mutex
	events []*productv1.Event
	lost   uint64
	done   chan struct{}
}

// Tap opens a tap for the kinds named; none: all.
func (a *Agent) Tap(kinds ...string) *Tap {
	a.T.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := a.Client.Events(ctx, connect.NewRequest(&controlv1.EventsRequest{Kinds: kinds}))
	if err != nil {
		cancel()
		a.T.Fatal(err)
	}
	p := &Tap{done: make(chan struct{})}
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
	a.T.Cleanup(func() { cancel(); <-p.done; _ = s.Close() })
	return p
}

// All returns what was collected so far.
func (p *Tap) All() []*productv1.Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*productv1.Event(nil), p.events...)
}

// Lost returns how many events the tap was too slow for.
func (p *Tap) Lost() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// Find waits for an event that f accepts.
func (a *Agent) Find(p *Tap, what string, f func(*productv1.Event) bool) *productv1.Event {
	a.T.Helper()
	var found *productv1.Event
	a.Eventually("the event "+what, 10*time.Second, func() error {
		for _, e := range p.All() {
			if f(e) {
				found = e
				return nil
			}
		}
		return errors.New("not seen")
	})
	return found
}
