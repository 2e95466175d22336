package controltest

import (
	"context"
	"sync"

	"bailey/agent/control"
	controlv1 "bailey/api/control/v1"
)

// Rules implements control.Rules.
type Rules struct {
	mu   sync.Mutex
	list []*controlv1.Rule
}

var _ control.Rules = (*Rules)(nil)

// Set says which rules there are.
func (r *Rules) Set(list ...*controlv1.Rule) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = list
}

// List returns what Set was given.
func (r *Rules) List(context.Context) ([]*controlv1.Rule, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list, nil
}
