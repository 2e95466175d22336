package recorder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/product/link"
	"bailey/internal/boottime"
)

const testBoot = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"

// lane is a Tap that a test fills.
type lane struct {
	ch      chan heard
	dropped atomic.Uint64
	pending uint64
}

type heard struct {
	e    *event.Event
	lost uint64
}

func newLane(room int) *lane { return &lane{ch: make(chan heard, room)} }

// put queues e, or counts it as dropped.
func (l *lane) put(e *event.Event) {
	select {
	case l.ch <- heard{e, l.pending}:
		l.pending = 0
	default:
		l.pending++
		l.dropped.Add(1)
	}
}

func (l *lane) Next(ctx context.Context) (*event.Event, uint64, error) {
	select {
	case h := <-l.ch:
		return h.e, h.lost, nil
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
}

func (l *lane) Poll() (*event.Event, uint64, bool) {
	select {
	case h := <-l.ch:
		return h.e, h.lost, true
	default:
		return nil, 0, false
	}
}

func (l *lane) Dropped() uint64 { return l.dropped.Load() }

func (l *lane) Close() {}

// rig is a recorder that runs.
type rig struct {
	*Recorder
	t      testing.TB
	lane   *lane
	health *health.Registry
	cancel context.CancelFunc
	done   chan error
}

// start runs a recorder in dir; changes may alter it before.
func start(t testing.TB, dir string, changes ...func(*Recorder)) *rig {
	t.Helper()
	g := &rig{t: t, lane: newLane(1 << 16), health: health.NewRegistry(), done: make(chan error, 1)}
	cfg := Config{
		Dir: dir, Tap: g.lane, Encoder: new(link.Codec), Now: boottime.Now, Wall: time.Now, Boot: testBoot,
		Started: boottime.Now(), Version: "1.2.3", Health: g.health,
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g.Recorder = r
	for _, change := range changes {
		change(r)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	go func() { g.done <- r.Run(ctx) }()
	t.Cleanup(g.stop)
	return g
}

// stop ends the recorder, which writes what it has.
func (g *rig) stop() {
	if g.cancel == nil {
		return
	}
	g.cancel()
	g.cancel = nil
	if err := <-g.done; !errors.Is(err, context.Canceled) {
		g.t.Errorf("the recorder ended with %v", err)
	}
}

// eventually waits for a condition of a recorder on a real clock and a real disk.
func (g *rig) eventually(what string, f func() bool) {
	g.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); <-tick.C {
		if f() {
			return
		}
	}
	g.t.Fatalf("never: %s; health %+v, stats %+v", what, g.entry(), g.Stats())
}

// taken waits until the recorder has heard everything.
func (g *rig) taken() {
	g.t.Helper()
	g.eventually("everything is taken", func() bool { return len(g.lane.ch) == 0 })
}

func (g *rig) entry() health.Entry {
	for _, e := range g.health.List() {
		if e.Component == "recorder" {
			return e
		}
	}
	return health.Entry{}
}

// record records events in dir and ends.
func record(t testing.TB, dir string, change func(*Recorder), events ...*event.Event) Stats {
	t.Helper()
	g := start(t, dir, change)
	for _, e := range events {
		g.lane.put(e)
	}
	g.taken()
	g.stop()
	return g.Stats()
}

func asIs(*Recorder) {}

func sized(n int64) func(*Recorder) { return func(r *Recorder) { r.cfg.Size = n } }

// newExec is an event that compresses badly enough to fill segments: its argument differs each time.
func newExec(seq uint64) *event.Event {
	shell := event.ProcessKey{PID: 100, Start: 1000}
	p := &event.Process{Key: event.ProcessKey{PID: 1000 + uint32(seq%1000), Start: seq}, Parent: shell, Comm: "cc", Executable: event.File{Path: "/usr/bin/cc", Ino: 77, Dev: 8}}
	return &event.Event{Kind: event.Exec, Seq: seq, Time: boottime.Now(), Process: p, Exec: &event.ExecDetail{
		Argv: []string{"cc", "-c", fmt.Sprintf("/src/%x%x%x%x.c", seq*0x9e3779b97f4a7c15, seq*0xbf58476d1ce4e5b9, seq*0x94d049bb133111eb, seq*0xd6e8feb86659fd93)}, Argc: 3, CWD: "/src",
	}}
}

func execs(n int) []*event.Event {
	var out []*event.Event
	for i := range n {
		out = append(out, newExec(uint64(i)+1))
	}
	return out
}

// history reads everything that a query asks for.
func history(t testing.TB, dir string, q Query) ([]*Record, []Skip) {
	t.Helper()
	r, err := Open(ReaderConfig{Dir: dir, Decoder: new(link.Codec), Query: q})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out []*Record
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, r.Skipped()
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, rec)
	}
}

// seqs are the numbers of the recorded events, in order.
func seqs(records []*Record) []uint64 {
	var out []uint64
	for _, r := range records {
		if r.Type == Event {
			out = append(out, r.Event.Seq)
		}
	}
	return out
}

func lost(records []*Record) (n uint64) {
	for _, r := range records {
		n += r.Lost
	}
	return n
}
