// Package health is the agent's list of what works, what is degraded and what the operator can do about it. A part reports
// its own state here; `bailey status` and `bailey doctor` show it. It decides nothing and logs nothing.
//
// Invariant: a degradation that is not in the registry does not exist for the operator, so every fallback sets an entry.
package health

import (
	"sort"
	"sync"
	"time"
)

// Status orders entries by how bad they are.
type Status uint8

// The statuses.
const (
	OK Status = iota + 1
	Degraded
	Failed
)

// String returns the status's word.
func (s Status) String() string {
	switch s {
	case OK:
		return "ok"
	case Degraded:
		return "degraded"
	case Failed:
		return "failed"
	}
	return "unknown"
}

// Entry is the state of one capability.
type Entry struct {
	Component string // dotted, e.g. "sensor.process", "containment.landlock"
	Status    Status
	Summary   string // one sentence: what is the case
	Remedy    string // what the operator can do; empty when OK
	Since     time.Time
}

// Registry holds the newest entry of each component. Safe for concurrent use; the zero value is not usable.
type Registry struct {
	mu      sync.Mutex
	entries map[string]Entry
	watch   []func(Entry)
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry { return &Registry{entries: make(map[string]Entry)} }

// Set records e if it differs from the component's present entry and tells the watchers. Since is set when zero.
func (r *Registry) Set(e Entry) {
	if e.Since.IsZero() {
		e.Since = time.Now()
	}
	r.mu.Lock()
	old, ok := r.entries[e.Component]
	if ok && old.Status == e.Status && old.Summary == e.Summary && old.Remedy == e.Remedy {
		r.mu.Unlock()
		return
	}
	r.entries[e.Component] = e
	watch := r.watch
	r.mu.Unlock()
	for _, f := range watch {
		f(e)
	}
}

// Remove forgets a component, e.g. a product that was removed.
func (r *Registry) Remove(component string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.entries, component)
}

// Watch calls f, in the goroutine that calls Set, for every later change.
func (r *Registry) Watch(f func(Entry)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watch = append(r.watch[:len(r.watch):len(r.watch)], f)
}

// List returns all entries ordered by component.
func (r *Registry) List() []Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Entry, 0, len(r.entries))
	for _, e := range r.entries {
		out = append(out, e)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Component < out[j].Component })
	return out
}

// Worst returns the worst status in the registry, OK when it is empty.
func (r *Registry) Worst() Status {
	worst := OK
	for _, e := range r.List() {
		worst = max(worst, e.Status)
	}
	return worst
}
