package controltest

import (
	"context"
	"sync"

	"bailey/agent/control"
	controlv1 "bailey/api/control/v1"
)

// Updates implements control.Updates with one stream, which is what Set was called with last.
type Updates struct {
	mu    sync.Mutex
	last  *controlv1.UpdateSetRequest
	looks uint64 // since then
}

var _ control.Updates = (*Updates)(nil)

const hour = int64(3600e9)

func (u *Updates) stream() *controlv1.UpdateStream {
	s := &controlv1.UpdateStream{
		Stream: "acme/edr/content", Installed: "2026.11.21.4",
		Settings: &controlv1.UpdateSettings{Watch: hour / 6, Defer: 12 * hour, Lag: 1, Windows: []string{"Mon-Fri 22:00-04:00", "Sat,Sun 00:00-24:00"}},
		Waiting:  "2026.11.22.2: it is deferred until 2026-11-23T00:00:00Z",
		Offers: []*controlv1.UpdateOffer{
			{Version: "2026.11.22.2", Urgency: "routine", Epoch: 7, Bytes: 5 << 20},
			{Version: "2026.11.22.1", Urgency: "urgent", Epoch: 7, Bytes: 4 << 20, Bad: "refused: rehearsal: it exited with status 1"},
		},
		Update: &controlv1.Update{
			Version: "2026.11.22.1", State: "refused", Reason: "rehearsal: it exited with status 1", Began: 1_700_000_000e9, Changed: 1_700_000_000e9 + hour,
			Release: "7.2-ab", Previous: "7.2-aa", Bytes: 4 << 20,
			Rehearsal: &controlv1.Rehearsal{Product: "edr", Release: "7.2-ab", Installed: "7.2-aa", Reasons: []string{"it exited with status 1"}, Took: 1e9},
		},
	}
	if r := u.last; r != nil {
		s.Paused = r.GetAction() == "pause"
		if s.Paused {
			s.Overrides = append(s.Overrides, "paused")
		}
		if r.GetAction() == "pin" && r.GetVersion() != "" {
			s.Pinned = r.GetVersion()
			s.Overrides = append(s.Overrides, "pinned to "+s.Pinned)
		}
		if r.GetAction() == "apply" { // it comes in while one looks
			u.looks++
			s.Update = &controlv1.Update{Version: "2026.11.22.2", State: "fetch", Began: 1_700_000_000e9, Changed: 1_700_000_000e9, Bytes: 5 << 20, Fetched: u.looks << 20}
			if u.looks >= 5 {
				s.Update.State, s.Update.Reason = "committed", "it did no harm"
			}
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
	u.last, u.looks = r, 0
	return u.stream(), nil
}

// Plan returns a release that waits for much.
func (u *Updates) Plan(_ context.Context, stream string, force bool) (*controlv1.UpdatePlanResponse, error) {
	if stream != "acme/edr/content" {
		return nil, &control.Fault{Class: control.NotFound, Message: "no such stream: " + stream, Hint: "see: bailey update list"}
	}
	m := &controlv1.UpdatePlanResponse{
		Stream: stream, Version: "2026.11.22.1", State: "fetch", Base: "2026.11.21.4", Bytes: 3 << 20, Fetched: 1 << 20, Requires: []string{"code >=7.1 <8", "platform >=1.4"},
		Waits: []*controlv1.UpdateWait{{State: "promote", Reason: "outside of its windows until Mon 22:00"}}, Ahead: []string{"stage", "rehearse", "promote", "watch", "committed"},
		Others: []*controlv1.UpdateOther{{Version: "2026.11.22.2", Reason: "it is deferred until 2026-11-23T00:00:00Z"}},
	}
	if force {
		m.Waits = nil
	}
	return m, nil
}

// History returns two moves.
func (u *Updates) History(context.Context, int) ([]*controlv1.UpdateMove, error) {
	return []*controlv1.UpdateMove{
		{Time: 1_700_000_000e9, Stream: "acme/edr/content", Version: "2026.11.22.1", To: "fetch", Reason: "it is offered"},
		{Time: 1_700_000_000e9 + hour, Stream: "acme/edr/content", Version: "2026.11.22.1", From: "rehearse", To: "refused", Reason: "rehearsal: it exited with status 1"},
	}, nil
}
