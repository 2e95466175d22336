package replay_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"bailey/agent/event"
	"bailey/agent/hub"
	"bailey/agent/product/link"
	"bailey/agent/recorder"
	"bailey/agent/sensor/replay"
	"bailey/internal/boottime"
)

func samples() []*event.Event {
	p := &event.Process{Key: event.ProcessKey{PID: 7, Start: 1 << 60}, Comm: "sh", Executable: event.File{Path: "/bin/\xff\xfe sh", Ino: 1<<64 - 1},
		Credentials: event.Credentials{UID: 1000, CapEffective: 1<<64 - 1}}
	return []*event.Event{
		{Kind: event.Exec, Seq: 1, Time: 1_000_000_000, Process: p, Exec: &event.ExecDetail{Argv: []string{"sh", "-c", "", "tab\tnew\n"}, Argc: 4}},
		{Kind: event.Fork, Time: 3_000_000_000, Process: p, Fork: &event.ForkDetail{Child: p}},
		{Kind: event.Exit, Time: 3_500_000_000, Process: p, Exit: &event.ExitDetail{Signal: 9}},
		{Kind: event.Rename, Time: 3_400_000_000, File: &event.FileDetail{File: event.File{Path: "/\xf0\x28\x8c\x28"}, From: "/plain"}},
		{Kind: event.Finding, Time: 5_000_000_000, Finding: &event.FindingDetail{Rule: "r", Fields: map[string]string{"k": "v"}}},
		{Kind: event.Verdict, Time: 5_000_000_000, Verdict: &event.VerdictDetail{Answers: []event.Answer{{Product: "a"}}}},
		{Kind: event.Product, Time: 5_000_000_000, Product: &event.ProductDetail{State: "running"}},
		{Kind: event.Health, Time: 5_000_000_000, Health: &event.HealthDetail{Status: "ok"}},
	}
}

// list is a Source of events in memory.
type list []*event.Event

func (l *list) Next() (*event.Event, error) {
	if len(*l) == 0 {
		return nil, io.EOF
	}
	e := (*l)[0]
	*l = (*l)[1:]
	return e, nil
}

func source(events []*event.Event) *list { l := list(events); return &l }

// TestPlaysWhatTheRecorderKept: recorded by the one, played by the other, heard by a hub's reader.
func TestPlaysWhatTheRecorderKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	codec := new(link.Codec)
	h, err := hub.New(hub.Config{Encoder: codec, Now: boottime.Now})
	if err != nil {
		t.Fatal(err)
	}
	rec, err := recorder.New(recorder.Config{
		Dir: dir, Tap: h.TapPassive(event.KindsOf(event.Kinds()...), 100), Encoder: codec, Now: boottime.Now, Wall: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range samples() {
		h.Publish(e)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := rec.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	r, err := recorder.Open(recorder.ReaderConfig{Dir: dir, Decoder: codec})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []*event.Event
	s, err := replay.New(replay.Config{Source: recorder.Events{Reader: r}, Emit: func(e *event.Event) { got = append(got, e) }})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := samples()
	for i, e := range want {
		e.Seq = uint64(i) + 1
		if e.Exec != nil {
			e.Exec.Previous = e.Process.Key
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestPace(t *testing.T) {
	for _, c := range []struct {
		name  string
		speed float64
		want  []time.Duration
	}{
		{"original", 1, []time.Duration{0, 2 * time.Second, 2500 * time.Millisecond, 2500 * time.Millisecond, 4 * time.Second}},
		{"twice_as_fast", 2, []time.Duration{0, time.Second, 1250 * time.Millisecond, 1250 * time.Millisecond, 2 * time.Second}},
		{"at_once", 0, []time.Duration{0, 0, 0, 0, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var got []time.Duration
				s, err := replay.New(replay.Config{Source: source(samples()[:5]), Speed: c.speed,
					Emit: func(*event.Event) { got = append(got, time.Since(start)) }})
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(c.want, got); d != "" {
					t.Error(d)
				}
			})
		})
	}
}

func TestRebaseKeepsDistances(t *testing.T) {
	t.Parallel()
	var got []uint64
	s, err := replay.New(replay.Config{Source: source(samples()[:2]), Rebase: 50,
		Emit: func(e *event.Event) { got = append(got, e.Time) }})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]uint64{50, 2_000_000_050}, got); d != "" {
		t.Error(d)
	}
}

func TestCancelEndsAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		n := 0
		s, err := replay.New(replay.Config{Source: source(samples()), Speed: 1, Emit: func(*event.Event) { n++ }})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(ctx); !errors.Is(err, context.DeadlineExceeded) || n != 1 {
			t.Errorf("%v after %d events", err, n)
		}
	})
}
