package controltest

import (
	"context"
	"sync"

	"bailey/agent/control"
	controlv1 "bailey/api/control/v1"

	"google.golang.org/protobuf/proto"
)

// Door implements control.Door. The zero value has no guard.
type Door struct {
	mu    sync.Mutex
	state *controlv1.Guard
	opens map[string]*controlv1.Guard
}

var _ control.Door = (*Door)(nil)

// noGuard is the state of a machine without one.
func noGuard() *controlv1.Guard {
	return &controlv1.Guard{Reason: "this test has none", Host: "00112233445566778899aabbccddeeff"}
}

// Guard makes a guard active and locked that the token opens once, with the state opened.
func (d *Door) Guard(token string, opened *controlv1.Guard) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state = locked()
	d.opens = map[string]*controlv1.Guard{token: opened}
}

func locked() *controlv1.Guard {
	return &controlv1.Guard{Active: true, Locked: true, Host: "00112233445566778899aabbccddeeff", Keys: []string{"alice (key 0011223344556677)"}}
}

func (d *Door) guard() *controlv1.Guard {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == nil {
		return noGuard()
	}
	return proto.Clone(d.state).(*controlv1.Guard)
}

// Unlock knows the token that Guard was given.
func (d *Door) Unlock(_ context.Context, token string) (*controlv1.Guard, error) {
	if err := d.change(func() error {
		opened, ok := d.opens[token]
		if !ok {
			return &control.Fault{Class: control.Refused, Message: "the token was used before, and each counts once", Hint: "sign another one with `bailey operator sign`"}
		}
		delete(d.opens, token)
		d.state = opened
		return nil
	}); err != nil {
		return nil, err
	}
	return d.guard(), nil
}

// Lock locks the guard.
func (d *Door) Lock(context.Context) (*controlv1.Guard, error) {
	if err := d.change(func() error { d.state = locked(); return nil }); err != nil {
		return nil, err
	}
	return d.guard(), nil
}

func (d *Door) change(f func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == nil {
		return &control.Fault{Class: control.Refused, Message: "no guard is active on this machine (this test has none)", Hint: "there is nothing to unlock"}
	}
	return f()
}
