package keeper

import (
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeManager hears what a service manager would.
type fakeManager struct {
	mu       sync.Mutex
	heard    []string
	watchdog time.Duration
}

func (m *fakeManager) Say(lines ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard = append(m.heard, strings.Join(lines, "\n"))
	return io.ErrClosedPipe // nobody cares
}

func (m *fakeManager) Watchdog() time.Duration { return m.watchdog }

func (m *fakeManager) has(line string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.heard, line)
}

func TestServiceSaysOnce(t *testing.T) {
	t.Parallel()
	m := &fakeManager{}
	s := newService(m, time.Nanosecond)
	defer s.end()
	<-s.boot // an agent that is slow does not hold the boot up
	s.started()
	s.started()
	s.status("a")
	s.status("a")
	s.status("b")
	if got, want := strings.Join(m.heard, ","), "READY=1,STATUS=a,STATUS=b"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if s.feed != nil {
		t.Error("it feeds a watchdog that nobody set")
	}
	none := newService(nil, time.Nanosecond)
	none.started()
	none.status("a")
	none.end()
}

// keeperFor returns as much of a keeper as its watchdog needs.
func keeperFor(a *answerer, m *fakeManager) *Keeper {
	k := &Keeper{cfg: Config{Log: slog.New(slog.DiscardHandler)}, board: a.board, answerer: a, service: newService(m, time.Hour)}
	return k
}

// TestWatchdogNeedsTheAnswerer: the watchdog is fed while the thread that answers moves on, and not when it does not.
func TestWatchdogNeedsTheAnswerer(t *testing.T) {
	b, err := NewBoard()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	a, err := newAnswerer(b, false, 64, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(a.wakeFD) })
	m := &fakeManager{}
	k := keeperFor(a, m)
	t.Cleanup(k.service.end)
	k.watchdog()
	if m.has("WATCHDOG=1") {
		t.Fatal("the watchdog is fed, and nobody answers")
	}
	done := make(chan struct{})
	go func() { defer close(done); a.run() }()
	t.Cleanup(func() { a.end(); <-done })
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !m.has("WATCHDOG=1"); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("the watchdog is not fed, and the answerer lives")
		}
		k.watchdog()
	}
}

// TestWatchdogNeedsAnswers: a question that waits, and that the keeper should answer and does not.
func TestWatchdogNeedsAnswers(t *testing.T) {
	r := newRig(t)
	m := &fakeManager{}
	k := keeperFor(r.a, m)
	t.Cleanup(k.service.end)
	r.a.group.Store(int32(r.group))
	r.a.bypass.Store(true) // and its thread does not run
	done := r.open(1)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !r.a.readable(int32(r.group)); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("nobody asks")
		}
	}
	r.a.rounds.Add(1)
	k.watchdog() // it may have come just now
	if !m.has("WATCHDOG=1") {
		t.Error("a question that just came starves the watchdog")
	}
	m.heard = nil
	r.a.rounds.Add(1)
	k.watchdog()
	if m.has("WATCHDOG=1") {
		t.Error("the watchdog is fed, and a question is not answered")
	}
	for r.a.one(int32(r.group)) {
	}
	done(10 * time.Second)
	r.a.rounds.Add(1)
	k.watchdog()
	if !m.has("WATCHDOG=1") {
		t.Error("the watchdog is not fed, and everything is answered")
	}
}
