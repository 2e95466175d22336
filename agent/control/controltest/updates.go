package controltest

import (
	"context"
	"sync"

	"bailey/agent/control"
	controlv1 "bailey/api/control/v1"
)

// Updates implements control.Updates with one stream, which is what Set was called with last.
type Updates struct {
	mu   sync.Mutex
	last *controlv1.UpdateSetRequest
}

var _ control.Updates = (*Updates)(nil)

const hour = int64(3600e9)

func (u *Updates) stream() *controlv1.UpdateStream {
	s := &controlv1.UpdateStream{
		Stream: "acme/edr/content", Installed: "2026.11.21.4", Waiting: "2026.11.22.2: it is deferred until 2026-11-23T00:00:00Z",
		Offers: []*controlv1.UpdateOffer{
			{Version: "2026.11.22.2", Urgency: "routine", Epoch: 7, Bytes: 5 << 20},
			{Version: "2026.11.22.1", Urgency: "urgent", Epoch: 7, Bytes: 4 << 20, Bad: "refused: rehearsal: it exited with status 1"},
		},
		Update: &controlv1.Update{
			Version: "2026.11.22.1", State: "refused", Reason: "rehearsal: it exited with status 1", Began: 1_700_000_000e9, Changed: 1_700_000_000e9 + hour,
			Release: "7.2-ab", Previous: "7.2-aa",
			Rehearsal: &controlv1.Rehearsal{Product: "edr", Release: "7.2-ab", Installed: "7.2-aa", Reasons: []string{"it exited with status 1"}, Took: 1e9},
		},
	}
	if r := u.last; r != nil {
		s.Paused = r.GetAction() == "pause"
		if r.GetAction() == "pin" {
			s.Pinned = r.GetVersion()
		}
	}
	return s
}

// List returns the stream.
func (u *Updates) List(context.Context) (*controlv1.UpdateListResponse, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return &controlv1.UpdateListResponse{Enabled: true, Looked: 1_700_000_000e9, Tried: 1_700_000_000e9, Streams: []*controlv1.UpdateStream{u.stream()}}, nil
}

// Check does nothing.
func (u *Updates) Check(context.Context) error { return nil }

// Set keeps what is wanted of the stream.
func (u *Updates) Set(_ context.Context, r *controlv1.UpdateSetRequest) (*controlv1.UpdateStream, error) {
	if r.GetStream() != "acme/edr/content" {
		return nil, &control.Fault{Class: control.NotFound, Message: "no such stream: " + r.GetStream(), Hint: "see: bailey update list"}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last = r
	return u.stream(), nil
}

// History returns two moves.
func (u *Updates) History(context.Context, int) ([]*controlv1.UpdateMove, error) {
	return []*controlv1.UpdateMove{
		{Time: 1_700_000_000e9, Stream: "acme/edr/content", Version: "2026.11.22.1", To: "fetch", Reason: "it is offered"},
		{Time: 1_700_000_000e9 + hour, Stream: "acme/edr/content", Version: "2026.11.22.1", From: "rehearse", To: "refused", Reason: "rehearsal: it exited with status 1"},
	}, nil
}
