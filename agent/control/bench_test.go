package control_test

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"bailey/agent/control"
	"bailey/agent/control/controltest"
	"bailey/agent/event"
	controlv1 "bailey/api/control/v1"

	"connectrpc.com/connect"
)

// endless is an agent whose taps never run dry.
type endless struct {
	*controltest.Agent
	left int
}

func (e *endless) Tap(event.KindSet) (control.Tap, error) { return e, nil }
func (e *endless) Close()                                 {}
func (e *endless) Next(context.Context) (*event.Event, uint64, error) {
	if e.left == 0 {
		return nil, 0, io.EOF
	}
	e.left--
	return exec1(uint64(e.left)), 0, nil
}

// BenchmarkEvents measures one event's way from the tap to a client on the other side of the socket.
func BenchmarkEvents(b *testing.B) {
	e := &endless{controltest.New(), b.N}
	a := run(b, func(c *control.Config) { c.Agent, c.Log = e, slog.New(slog.DiscardHandler) })
	s, err := a.client.Events(b.Context(), connect.NewRequest(&controlv1.EventsRequest{}))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	n := -1 // the first response has no event
	for s.Receive() {
		n++
	}
	if n != b.N || s.Err() != nil {
		b.Fatalf("%d of %d events: %v", n, b.N, s.Err())
	}
}
