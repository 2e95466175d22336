package control_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bailey/agent/control"
	"bailey/agent/event"
	controlv1 "bailey/api/control/v1"

	"connectrpc.com/connect"
)

func exec1(seq uint64) *event.Event {
	return &event.Event{Kind: event.Exec, Seq: seq, Process: &event.Process{Key: event.ProcessKey{PID: 7, Start: 70}, Comm: "ls"}, Exec: &event.ExecDetail{Argv: []string{"ls"}}}
}

// tap opens an event stream and waits until it is in place.
func (a *agent) tap(t *testing.T, r *controlv1.EventsRequest) *connect.ServerStreamForClient[controlv1.EventsResponse] {
	t.Helper()
	s, err := a.client.Events(t.Context(), connect.NewRequest(r))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if !s.Receive() || s.Msg().GetEvent() != nil {
		t.Fatalf("no first response: %v %v", s.Msg(), s.Err())
	}
	return s
}

func TestEventsAreFilteredAndCarryAncestors(t *testing.T) {
	t.Parallel()
	a := run(t, nil)
	a.SetAncestors(event.ProcessKey{PID: 7, Start: 70}, &event.Process{Comm: "bash"}, &event.Process{Comm: "sshd"})
	s := a.tap(t, &controlv1.EventsRequest{Kinds: []string{"exec", "finding"}, Ancestors: true, Products: []string{"mine"}})
	a.Emit(&event.Event{Kind: event.Fork, Seq: 1})
	a.Emit(&event.Event{Kind: event.Finding, Seq: 2, Finding: &event.FindingDetail{Product: "other"}})
	a.Emit(&event.Event{Kind: event.Finding, Seq: 3, Finding: &event.FindingDetail{Product: "mine"}})
	a.Emit(exec1(4))
	a.End()
	var got []string
	for s.Receive() {
		line := fmt.Sprint(s.Msg().GetEvent().GetSeq())
		for _, p := range s.Msg().GetAncestors() {
			line += " < " + p.GetComm()
		}
		got = append(got, line)
	}
	if s.Err() != nil || strings.Join(got, ", ") != "3, 4 < bash < sshd" {
		t.Errorf("got %q, %v", got, s.Err())
	}
}

func TestEventsEndAfterTheTimeAskedFor(t *testing.T) {
	t.Parallel()
	a := run(t, nil)
	s := a.tap(t, &controlv1.EventsRequest{For: uint64(50 * time.Millisecond)})
	if s.Receive() || s.Err() != nil {
		t.Errorf("got %v, %v", s.Msg(), s.Err())
	}
}

func TestUnknownKindIsNamed(t *testing.T) {
	t.Parallel()
	a := run(t, nil)
	s, err := a.client.Events(t.Context(), connect.NewRequest(&controlv1.EventsRequest{Kinds: []string{"exce"}}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if s.Receive() || connect.CodeOf(s.Err()) != connect.CodeInvalidArgument || !strings.Contains(s.Err().Error(), `"exce"; known: exec,`) {
		t.Errorf("got %v", s.Err())
	}
}

// TestSlowReaderLosesEventsAndIsTold never reads until many more events were emitted than all buffers on the way hold; emitting
// never waits, and what arrives with what is announced as lost is everything.
func TestSlowReaderLosesEventsAndIsTold(t *testing.T) {
	t.Parallel()
	a := run(t, nil)
	s := a.tap(t, &controlv1.EventsRequest{})
	const emitted = 20_000
	e := exec1(1)
	e.Exec.Argv = []string{strings.Repeat("x", 1000)}
	start := time.Now()
	for range emitted {
		a.Emit(e)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("emitting took %v", took)
	}
	var seen, lost uint64
	last := false
	for !last && s.Receive() {
		seen++
		lost += s.Msg().GetLost()
		if seen == 1 { // now that it reads, mark the end; repeated because a full queue would drop it
			go func() {
				for tick := time.NewTicker(time.Millisecond); a.Taps() > 0; <-tick.C {
					a.Emit(&event.Event{Kind: event.Exit, Seq: 99})
				}
			}()
		}
		last = s.Msg().GetEvent().GetSeq() == 99
	}
	if lost == 0 || seen-1+lost < emitted {
		t.Errorf("seen %d, lost %d of %d: %v", seen-1, lost, emitted, s.Err())
	}
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	a := run(t, func(c *control.Config) { c.MaxStreams = 1 })
	first := a.tap(t, &controlv1.EventsRequest{})
	s, err := a.client.Events(t.Context(), connect.NewRequest(&controlv1.EventsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if s.Receive() || connect.CodeOf(s.Err()) != connect.CodeResourceExhausted {
		t.Errorf("a second stream: got %v", s.Err())
	}
	a.End()
	for first.Receive() {
	}
	a.tap(t, &controlv1.EventsRequest{}) // the place is free again
}

// TestStopEndsStreams stops the server with a tap and a log open; both end with "the agent is stopping".
func TestStopEndsStreams(t *testing.T) {
	t.Parallel()
	a := run(t, nil)
	s := a.tap(t, &controlv1.EventsRequest{})
	start := time.Now()
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("stopping took %v", took)
	}
	if s.Receive() || connect.CodeOf(s.Err()) != connect.CodeUnavailable {
		t.Errorf("got %v", s.Err())
	}
	if a.Taps() != 0 {
		t.Errorf("%d taps left", a.Taps())
	}
	if _, err := os.Stat(a.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	a := run(t, nil)
	dir := filepath.Join(t.TempDir(), "guard")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "manifest.toml"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	plan, err := a.Products.Plan(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Products.Install(t.Context(), dir, plan.GetHash()); err != nil {
		t.Fatal(err)
	}
	s, err := a.client.ProductLogs(t.Context(), connect.NewRequest(&controlv1.ProductLogsRequest{Name: "guard"}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	var text string
	for s.Receive() {
		text += string(s.Msg().GetData())
	}
	if text != "started\nready\n" || s.Err() != nil {
		t.Errorf("got %q, %v", text, s.Err())
	}
}
