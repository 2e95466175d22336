package brake

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
)

// bench is a brake with a package database that owns what lies below /usr, and a hub that only remembers.
type bench struct {
	*Brake
	registry *health.Registry
	file     string

	mu        sync.Mutex
	unknown   bool // the package database cannot say
	execs     uint64
	repeated  uint64
	braked    map[string]string
	findings  []*event.Event
	questions uint64
}

func boot() uint64 { return uint64(time.Now().UnixNano()) }

func newBench(t *testing.T, file string, l Limits) *bench {
	t.Helper()
	b := &bench{registry: health.NewRegistry(), file: file, braked: map[string]string{}}
	var err error
	b.Brake, err = New(Config{
		File: file, Limits: l, Now: boot, Health: b.registry,
		Owned: func(f *event.File) (bool, bool) {
			b.mu.Lock()
			defer b.mu.Unlock()
			return strings.HasPrefix(f.Path, "/usr/"), !b.unknown
		},
		Restrain: func(product string, on bool, reason string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			delete(b.braked, product)
			if on {
				b.braked[product] = reason
			}
		},
		Emit: func(e *event.Event) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.findings = append(b.findings, e)
		},
		Wanted: func() bool { return true },
		Execs: func() (uint64, bool) {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.execs, true
		},
		Repeated: func(string) uint64 {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.repeated
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// run runs a brake inside a synctest bubble until the test's body returned.
func run(t *testing.T, l Limits, body func(t *testing.T, b *bench)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, filepath.Join(dir, "brake.json"), l)
		b.Joined("p", "1.0-aa", 0, 0)
		during(t, b, func() { body(t, b) })
	})
}

// during runs b while f does.
func during(t *testing.T, b *bench, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	f()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// judgedFrom waits, after the first deny of several, until the brake has noted from where on it counts.
func (b *bench) judgedFrom(i int) {
	if i == 0 {
		synctest.Wait()
	}
}

// deny is one deny of product p that decided its question, or that was overridden. Root's files unless the path is in /home.
func (b *bench) deny(path string, ino uint64, fate event.Fate) (stood bool) {
	b.questions++
	f := event.File{Path: path, Dev: 1, Ino: ino, Mode: 0o100755}
	if strings.HasPrefix(path, "/home/") {
		f.UID = 1000
	}
	return b.say(event.Denial{
		Product: "p", Fate: fate, QuestionID: b.questions, Asked: event.Exec, Time: boot(), File: f,
		Process: &event.Process{Key: event.ProcessKey{PID: 7, Start: 1}},
	})
}

// say does what the verdict engine does with a deny, and reports whether it stood.
func (b *bench) say(d event.Denial) bool {
	if d.Fate == event.DenyStood && !b.Admit(&d) {
		d.Fate = event.DenyBraked
	}
	b.Denied(d)
	return d.Fate == event.DenyStood
}

func (b *bench) isBraked() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.braked["p"]
	return ok
}

// want fails unless p is braked by the rule; an empty one means not braked.
func (b *bench) want(t *testing.T, rule string) {
	t.Helper()
	synctest.Wait()
	got := ""
	if list := b.List(); len(list) > 0 {
		got = list[0].Rule
	}
	if got != rule || b.isBraked() != (rule != "") {
		t.Errorf("braked by %q (restrained: %v), want %q", got, b.isBraked(), rule)
	}
	entries := b.registry.List()
	i := slices.IndexFunc(entries, func(e health.Entry) bool { return e.Component == "product.p.brake" })
	switch {
	case rule == "" && i >= 0 && entries[i].Status != health.OK:
		t.Errorf("health says %+v", entries[i])
	case rule != "" && (i < 0 || entries[i].Status != health.Degraded || !strings.Contains(entries[i].Remedy, "bailey brake release p")):
		t.Errorf("health does not name the remedy: %+v", entries)
	}
}
