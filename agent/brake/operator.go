package brake

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"bailey/agent/health"
)

// ErrNotBraked is the class of a product that cannot be released.
var ErrNotBraked = errors.New("product is not braked")

// Braked is one braked product.
type Braked struct {
	Record
	Denies uint64 // that did not count since it is braked, or since the agent started
}

// List returns the braked products by name.
func (b *Brake) List() []Braked {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Braked
	for _, w := range b.products {
		if w.braked != nil {
			out = append(out, Braked{Record: *w.braked, Denies: w.count})
		}
	}
	slices.SortFunc(out, func(x, y Braked) int { return strings.Compare(x.Product, y.Product) })
	return out
}

// Release gives a product its right to deny back, with nothing held against it. Only an operator does. An error other than
// ErrNotBraked says that it is released and that the next agent will not know.
func (b *Brake) Release(product string) error {
	b.change.Lock()
	defer b.change.Unlock()
	b.mu.Lock()
	w := b.products[product]
	if w == nil || w.braked == nil {
		b.mu.Unlock()
		return fmt.Errorf("release %s: %w", product, ErrNotBraked)
	}
	w.braked, w.count = nil, 0
	w.clear()
	b.mu.Unlock()

	b.cfg.Restrain(product, false, "the operator released the brake")
	err := b.save()
	b.cfg.Health.Set(health.Entry{Component: component(product), Status: health.OK, Summary: "its denies count"})
	b.cfg.Log.Info("product is released: its denies count again", "product", product)
	return err
}

// Forget drops all that is known of a product that was removed.
func (b *Brake) Forget(product string) error {
	err := b.Release(product)
	if errors.Is(err, ErrNotBraked) {
		err = nil
	}
	b.mu.Lock()
	delete(b.products, product)
	b.mu.Unlock()
	b.cfg.Health.Remove(component(product))
	b.cfg.Health.Remove("product." + product + ".denies")
	return err
}
