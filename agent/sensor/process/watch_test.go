package process_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/sensor/process"
)

// watch is a running sensor and the events that it emitted.
type watch struct {
	*process.Sensor
	health *health.Registry

	mu     sync.Mutex
	events []*event.Event
	wake   chan struct{}
	read   int // of the test's goroutine
}

const patience = 20 * time.Second

// start runs a sensor until the test ends, when it must leave nothing behind.
func start(t testing.TB, cfg process.Config) *watch {
	t.Helper()
	w := startPaused(t, cfg)
	w.run(t)
	return w
}

// startPaused attaches a sensor that does not run yet.
func startPaused(t testing.TB, cfg process.Config) *watch {
	t.Helper()
	cfg.Wanted = true
	return attach(t, cfg)
}

// attach makes a sensor that is closed when the test ends.
func attach(t testing.TB, cfg process.Config) *watch {
	t.Helper()
	w := &watch{health: health.NewRegistry(), wake: make(chan struct{}, 1)}
	w.open(t, cfg)
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	if entries := w.health.List(); !cfg.WithoutBPF && (len(entries) == 0 || entries[0].Component != process.Component || entries[0].Status != health.OK) {
		t.Fatalf("the sensor is not whole here: %+v", entries)
	}
	return w
}

// open makes the sensor; the caller closes it.
func (w *watch) open(t testing.TB, cfg process.Config) {
	t.Helper()
	cfg.Health, cfg.Log, cfg.Emit = w.health, slog.New(slog.DiscardHandler), w.emit
	s, err := process.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.Sensor = s
}

// run runs the sensor until the test ends.
func (w *watch) run(t testing.TB) { t.Cleanup(w.runUntil(t)) }

// runUntil runs the sensor until the returned function is called.
func (w *watch) runUntil(t testing.TB) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// wait looks at a condition until it holds.
func (w *watch) wait(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waited too long for %s", what)
		}
	}
}

func (w *watch) emit(e *event.Event) {
	w.mu.Lock()
	w.events = append(w.events, e)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// until waits for the next event that fits and returns it; events before it are skipped.
func (w *watch) until(t testing.TB, what string, fits func(*event.Event) bool) *event.Event {
	t.Helper()
	late := time.After(patience)
	for {
		w.mu.Lock()
		for w.read < len(w.events) {
			e := w.events[w.read]
			w.read++
			if fits(e) {
				w.mu.Unlock()
				return e
			}
		}
		w.mu.Unlock()
		select {
		case <-w.wake:
		case <-late:
			t.Fatalf("no event: %s", what)
		}
	}
}

// rewind makes until look at all events again.
func (w *watch) rewind() { w.read = 0 }

// all returns a copy of the events so far.
func (w *watch) all() []*event.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*event.Event(nil), w.events...)
}

func (w *watch) exec(t testing.TB, pid int) *event.Event {
	t.Helper()
	return w.until(t, "exec", func(e *event.Event) bool { return e.Kind == event.Exec && e.Process.Key.PID == uint32(pid) })
}

func (w *watch) fork(t testing.TB, pid int) *event.Event {
	t.Helper()
	return w.until(t, "fork", func(e *event.Event) bool { return e.Kind == event.Fork && e.Fork.Child.Key.PID == uint32(pid) })
}

func (w *watch) exit(t testing.TB, pid int) *event.Event {
	t.Helper()
	return w.until(t, "exit", func(e *event.Event) bool { return e.Kind == event.Exit && e.Process.Key.PID == uint32(pid) })
}

func (w *watch) counters(t testing.TB) process.Counters {
	t.Helper()
	c, err := w.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
