package controltest

import (
	"context"
	"slices"
	"sync"

	"bailey/agent/control"
	controlv1 "bailey/api/control/v1"

	"google.golang.org/protobuf/proto"
)

// Brake implements control.Brake.
type Brake struct {
	mu     sync.Mutex
	braked []*controlv1.BrakedProduct
}

var _ control.Brake = (*Brake)(nil)

// Set says which products are braked.
func (b *Brake) Set(braked ...*controlv1.BrakedProduct) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.braked = braked
}

// List returns what Set was given and Release did not take.
func (b *Brake) List(context.Context) ([]*controlv1.BrakedProduct, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []*controlv1.BrakedProduct
	for _, r := range b.braked {
		out = append(out, proto.Clone(r).(*controlv1.BrakedProduct))
	}
	return out, nil
}

// Release releases a product.
func (b *Brake) Release(_ context.Context, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := len(b.braked)
	b.braked = slices.DeleteFunc(b.braked, func(r *controlv1.BrakedProduct) bool { return r.GetProduct() == name })
	if len(b.braked) == before {
		return &control.Fault{Class: control.Refused, Message: name + " is not braked", Hint: "`bailey brake list` shows those that are"}
	}
	return nil
}
