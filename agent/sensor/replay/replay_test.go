package replay_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"bailey/agent/event"
	"bailey/agent/sensor/replay"
)

func samples() []*event.Event {
	p := &event.Process{Key: event.ProcessKey{PID: 7, Start: 1 << 60}, Comm: "sh", Executable: event.File{Path: "/bin/\xff\xfe sh", Ino: 1<<64 - 1},
		Credentials: event.Credentials{UID: 1000, CapEffective: 1<<64 - 1}}
	return []*event.Event{
		{Kind: event.Exec, Seq: 1, Time: 1_000_000_000, Process: p, Exec: &event.ExecDetail{Argv: []string{"sh", "-c", "\xc3\x28", "", "\x00x", "tab\tnew\n"}, Argc: 6}},
		{Kind: event.Fork, Time: 3_000_000_000, Process: p, Fork: &event.ForkDetail{Child: p}},
		{Kind: event.Exit, Time: 3_500_000_000, Process: p, Exit: &event.ExitDetail{Signal: 9}},
		{Kind: event.Rename, Time: 3_400_000_000, File: &event.FileDetail{File: event.File{Path: "/\xf0\x28\x8c\x28"}, From: "/plain"}},
		{Kind: event.Finding, Time: 5_000_000_000, Finding: &event.FindingDetail{Rule: "r", Fields: map[string]string{"k\xff": "\xff"}}},
		{Kind: event.Verdict, Time: 5_000_000_000, Verdict: &event.VerdictDetail{Answers: []event.Answer{{Product: "a"}}}},
		{Kind: event.Product, Time: 5_000_000_000, Product: &event.ProductDetail{State: "running"}},
		{Kind: event.Health, Time: 5_000_000_000, Health: &event.HealthDetail{Status: "ok"}},
	}
}

func recorded(t testing.TB, events []*event.Event) []byte {
	t.Helper()
	var b bytes.Buffer
	w := replay.NewWriter(&b)
	for _, e := range events {
		if err := w.Write(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReaderGivesBackWhatWriterWrote(t *testing.T) {
	t.Parallel()
	want := samples()
	r := replay.NewReader(bytes.NewReader(recorded(t, want)))
	for _, w := range want {
		got, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(w, got); d != "" {
			t.Error(d)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if d := cmp.Diff(samples(), want); d != "" {
		t.Errorf("writing changed an event: %s", d)
	}
}

func TestReaderNamesTheLineThatIsWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, line, want string }{
		{"no_json", "x", "line 2"}, {"unknown_kind", `{"kind":"nap","time":1}`, `unknown event type "nap"`},
		{"unknown_field", `{"kind":"exec","time":1,"x":1}`, "unknown field"}, {"two_objects", `{"kind":"exec","time":1}{}`, "more than one"},
		{"bad_armour", `{"kind":"exec","time":1,"exec":{"CWD":"\u0000!"}}`, "armoured"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := replay.NewReader(strings.NewReader("\n" + c.line + "\n"))
			if _, err := r.Next(); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "line 2") {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
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
				s, err := replay.New(replay.Config{Source: replay.NewReader(bytes.NewReader(recorded(t, samples()[:5]))), Speed: c.speed,
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
	s, err := replay.New(replay.Config{Source: replay.NewReader(bytes.NewReader(recorded(t, samples()[:2]))), Rebase: 50,
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
		s, err := replay.New(replay.Config{Source: replay.NewReader(bytes.NewReader(recorded(t, samples()))), Speed: 1, Emit: func(*event.Event) { n++ }})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(ctx); !errors.Is(err, context.DeadlineExceeded) || n != 1 {
			t.Errorf("%v after %d events", err, n)
		}
	})
}

func FuzzReader(f *testing.F) {
	f.Add(recorded(f, samples()))
	f.Add([]byte(`{"kind":"exec","time":1,"process":{"Key":{"PID":1}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := replay.NewReader(bytes.NewReader(b))
		for {
			e, err := r.Next()
			if err != nil {
				return
			}
			again, err := replay.NewReader(bytes.NewReader(recorded(t, []*event.Event{e}))).Next()
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(e, again); d != "" {
				t.Fatal(d)
			}
		}
	})
}
