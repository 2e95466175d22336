// Package controltest is an agent in memory for tests of the control API and of its clients: products that do not run, a cache
// that only counts, and events that a test emits. It is not the agent, and asks the kernel nothing.
//
// Invariant: it keeps the contract of control.Agent, control.Products and control.Cache, errors included.
package controltest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"

	"bailey/agent/control"
	"bailey/agent/event"
	controlv1 "bailey/api/control/v1"
	productv1 "bailey/api/product/v1"
)

// Agent implements control.Agent. The zero value is not usable; see New.
type Agent struct {
	Products *Products
	Cache    *Cache
	Brake    *Brake
	Door     *Door
	Rules    *Rules
	Updates  *Updates

	mu        sync.Mutex
	taps      map[*tap]bool
	ancestors map[event.ProcessKey][]*event.Process
	health    []*controlv1.HealthEntry
	upgraded  []string
	safe      string
}

var _ control.Agent = (*Agent)(nil)

// New returns an agent with no products and an empty cache.
func New() *Agent {
	return &Agent{
		Products:  &Products{installed: make(map[string]*controlv1.Product)},
		Cache:     &Cache{},
		Brake:     &Brake{},
		Door:      &Door{},
		Rules:     &Rules{},
		Updates:   &Updates{},
		taps:      make(map[*tap]bool),
		ancestors: make(map[event.ProcessKey][]*event.Process),
	}
}

// Config returns the server's configuration for this agent; Log must be added.
func (a *Agent) Config(run string) control.Config {
	return control.Config{Run: run, Agent: a, Products: a.Products, Cache: a.Cache, Brake: a.Brake, Door: a.Door, Rules: a.Rules, Updates: a.Updates, AppendEvent: AppendEvent, Metrics: http.HandlerFunc(metrics)}
}

// metrics is the text that a scrape gets.
func metrics(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, "# TYPE bailey_questions_in_flight gauge\nbailey_questions_in_flight 0\n") // its reader says what it misses
}

// Status returns a status with every part filled.
func (a *Agent) Status(ctx context.Context) (*controlv1.StatusResponse, error) {
	products, err := a.Products.List(ctx)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return &controlv1.StatusResponse{
		Version: "test", BootId: "00000000-0000-4000-8000-000000000001", Pid: uint32(os.Getpid()),
		Started: 1e9, Uptime: 90e9, StateDir: "/var/lib/bailey", RunDir: "/run/bailey", Kernel: "6.1.0",
		Questions: &controlv1.Questions{
			Asked: 12, Allowed: 11, Denied: 1, LatencyP50: 60_000, LatencyP99: 900_000,
			ByReason: map[string]uint64{"products": 7, "cache": 5}, ByKind: map[string]uint64{"exec": 12},
		},
		Cache:    a.Cache.snapshot(),
		Products: products,
		Sensors:  []*controlv1.Sensor{{Name: "process", Counters: map[string]uint64{"execs": 12, "forks": 30}}},
		Health:   a.health,
		Guard:    a.Door.guard(),
		Boot:     a.boot(),
	}, nil
}

// SetHealth replaces the health entries.
func (a *Agent) SetHealth(entries ...*controlv1.HealthEntry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.health = entries
}

// Health returns the entries of SetHealth; the worst is that of the last one.
func (a *Agent) Health(context.Context) (*controlv1.HealthResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	worst := "ok"
	for _, e := range a.health {
		if e.GetStatus() == "failed" || worst == "ok" {
			worst = e.GetStatus()
		}
	}
	return &controlv1.HealthResponse{Worst: worst, Entries: a.health}, nil
}

// SetAncestors says what Ancestors returns for a key.
func (a *Agent) SetAncestors(key event.ProcessKey, ancestors ...*event.Process) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ancestors[key] = ancestors
}

// Ancestors returns what SetAncestors was given.
func (a *Agent) Ancestors(key event.ProcessKey) []*event.Process {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ancestors[key]
}

// TapBuffer is how many events a tap holds for a slow reader.
const TapBuffer = 64

type tap struct {
	agent *Agent
	kinds event.KindSet
	queue chan *event.Event
	mu    sync.Mutex
	lost  uint64
}

// Tap starts a tap.
func (a *Agent) Tap(kinds event.KindSet) (control.Tap, error) {
	t := &tap{agent: a, kinds: kinds, queue: make(chan *event.Event, TapBuffer)}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.taps[t] = true
	return t, nil
}

// Taps returns how many taps are open.
func (a *Agent) Taps() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.taps)
}

// Emit gives e to every tap, without ever waiting for one.
func (a *Agent) Emit(e *event.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for t := range a.taps {
		if !t.kinds.Has(e.Kind) {
			continue
		}
		select {
		case t.queue <- e:
		default:
			t.mu.Lock()
			t.lost++
			t.mu.Unlock()
		}
	}
}

// End ends every tap.
func (a *Agent) End() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for t := range a.taps {
		close(t.queue)
		delete(a.taps, t)
	}
}

func (t *tap) Next(ctx context.Context) (*event.Event, uint64, error) {
	select {
	case e, ok := <-t.queue:
		if !ok {
			return nil, 0, io.EOF
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		lost := t.lost
		t.lost = 0
		return e, lost, nil
	case <-ctx.Done():
		return nil, 0, fmt.Errorf("wait for an event: %w", ctx.Err())
	}
}

func (t *tap) Close() {
	t.agent.mu.Lock()
	defer t.agent.mu.Unlock()
	delete(t.agent.taps, t)
}

// Cache implements control.Cache.
type Cache struct {
	mu      sync.Mutex
	entries uint64
	cleared uint64
}

var _ control.Cache = (*Cache)(nil)

// Fill says how many verdicts the cache holds.
func (c *Cache) Fill(entries uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries = entries
}

func (c *Cache) snapshot() *controlv1.Cache {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &controlv1.Cache{Enabled: true, Entries: c.entries, Cleared: map[string]uint64{"operator": c.cleared}}
}

// Show returns the cache's counts.
func (c *Cache) Show(context.Context) (*controlv1.Cache, error) { return c.snapshot(), nil }

// Clear empties the cache.
func (c *Cache) Clear(context.Context) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.entries
	c.entries = 0
	c.cleared++
	return n, nil
}

// AppendEvent encodes the fields of an event that tests of the API look at.
func AppendEvent(dst []byte, e *event.Event) []byte {
	m := &productv1.Event{Kind: productv1.Kind(e.Kind), Seq: e.Seq, Time: e.Time, Process: process(e.Process)}
	if e.Exec != nil {
		m.Exec = &productv1.Exec{Argv: e.Exec.Argv, Argc: e.Exec.Argc, Cwd: e.Exec.CWD}
	}
	if e.File != nil {
		m.File = &productv1.FileEvent{File: &productv1.File{Path: e.File.File.Path}, From: e.File.From}
	}
	if e.Finding != nil {
		m.Finding = &productv1.Finding{Product: e.Finding.Product, Rule: e.Finding.Rule, Title: e.Finding.Title, Severity: productv1.Severity(e.Finding.Severity)}
	}
	data, err := m.MarshalVT()
	if err != nil {
		return dst
	}
	return append(dst, data...)
}

func process(p *event.Process) *productv1.Process {
	if p == nil {
		return nil
	}
	return &productv1.Process{
		Key:    &productv1.ProcessKey{Pid: p.Key.PID, Start: p.Key.Start},
		Parent: &productv1.ProcessKey{Pid: p.Parent.PID, Start: p.Parent.Start},
		Comm:   p.Comm, Executable: &productv1.File{Path: p.Executable.Path},
		Credentials: &productv1.Credentials{Uid: p.Credentials.UID, Euid: p.Credentials.EUID},
	}
}

// Upgrade notes the path.
func (a *Agent) Upgrade(_ context.Context, path string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.upgraded = append(a.upgraded, path)
	return nil
}

// SetSafe has the agent be in safe mode.
func (a *Agent) SetSafe(why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.safe = why
}

// BootGood leaves safe mode.
func (a *Agent) BootGood(context.Context) (*controlv1.Boot, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.safe = ""
	return a.boot(), nil
}

// boot is how boots go; a.mu is held.
func (a *Agent) boot() *controlv1.Boot {
	if a.safe == "" {
		return &controlv1.Boot{Good: true, SafeAfter: 3, LastGood: map[string]string{"edr": "1.0-ab"}}
	}
	return &controlv1.Boot{
		Safe: a.safe, Leave: "reboot with another release", Unclean: 3, SafeAfter: 3, LastGood: map[string]string{"edr": "1.0-ab"},
		Back: []*controlv1.BootBack{{Product: "edr", From: "2.0-cd", To: "1.0-ab"}},
	}
}

// Upgraded returns the paths that Upgrade was called with.
func (a *Agent) Upgraded() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.upgraded)
}
