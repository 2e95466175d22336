package rig

import (
	"context"
	"fmt"
	"time"

	controlv1 "bailey/api/control/v1"

	"connectrpc.com/connect"
)

// Stream returns what the agent says of a stream of a rig's vendor, "PRODUCT/KIND".
func (a *Agent) Stream(stream string) *controlv1.UpdateStream {
	a.T.Helper()
	r, err := a.Client.UpdateList(context.Background(), connect.NewRequest(&controlv1.UpdateListRequest{}))
	if err != nil {
		a.T.Fatal(err)
	}
	for _, s := range r.Msg.GetStreams() {
		if s.GetStream() == VendorName+"/"+stream {
			return s
		}
	}
	a.T.Fatalf("the agent follows no %s", stream)
	return nil
}

// Reaches has the agent look at the mirrors, waits until a version of a stream is in one of some states and returns the stream.
func (a *Agent) Reaches(stream, version string, within time.Duration, states ...string) *controlv1.UpdateStream {
	a.T.Helper()
	a.Must("update", "check")
	return a.Becomes(stream, version, within, states...)
}

// Becomes is Reaches without a look at the mirrors.
func (a *Agent) Becomes(stream, version string, within time.Duration, states ...string) (s *controlv1.UpdateStream) {
	a.T.Helper()
	a.Eventually(fmt.Sprintf("%s %s is %v", stream, version, states), within, func() error {
		s = a.Stream(stream)
		u := s.GetUpdate()
		for _, state := range states {
			if u.GetVersion() == version && u.GetState() == state {
				return nil
			}
		}
		return fmt.Errorf("%s is %s: %s; %s %s", u.GetVersion(), u.GetState(), u.GetReason(), s.GetWaiting(), s.GetProblem())
	})
	return s
}

// Moves returns the moves of a stream, the oldest first.
func (a *Agent) Moves(stream string) (out []*controlv1.UpdateMove) {
	a.T.Helper()
	r, err := a.Client.UpdateHistory(context.Background(), connect.NewRequest(&controlv1.UpdateHistoryRequest{Limit: 1000}))
	if err != nil {
		a.T.Fatal(err)
	}
	for _, m := range r.Msg.GetMoves() {
		if m.GetStream() == VendorName+"/"+stream {
			out = append(out, m)
		}
	}
	return out
}
