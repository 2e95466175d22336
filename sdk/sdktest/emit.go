package sdktest

import (
	"slices"

	productv1 "bailey/api/product/v1"
	"bailey/sdk"
)

// Emit sends events and returns when the product's OnEvent has handled them all.
func (a *Agent) Emit(events ...*sdk.Event) {
	a.t.Helper()
	for _, e := range events {
		a.wait("acknowledgement of events", func() bool { return len(a.unacked) < int(a.o.Window) })
		a.EmitOnly(e)
	}
	a.wait("acknowledgement of the last event", func() bool { return len(a.unacked) == 0 })
}

// EmitOnly sends one event and does not wait, not even for the window.
func (a *Agent) EmitOnly(e *sdk.Event) {
	a.t.Helper()
	var seq uint64
	a.update(func() {
		a.eventSeq++
		seq = a.eventSeq
		a.unacked = append(a.unacked, seq)
	})
	a.send(productv1.Header{Kind: productv1.FrameEvent, Seq: seq}, e, -1)
}

// Lose announces that n events were not delivered. OnLost is called before OnEvent sees a later Emit.
func (a *Agent) Lose(n int, cause string) {
	a.t.Helper()
	var from, to uint64
	a.update(func() {
		from, to = a.eventSeq+1, a.eventSeq+uint64(n)
		a.eventSeq = to
	})
	a.send(productv1.Header{Kind: productv1.FrameLost, Seq: to}, &productv1.Lost{From: from, To: to, Cause: cause}, -1)
}

// SetAuthority tells the product its new authority: live, shadow, degraded, braked or off.
func (a *Agent) SetAuthority(authority, reason string) {
	a.t.Helper()
	a.send(productv1.Header{Kind: productv1.FrameState}, &productv1.State{Authority: authority, Reason: reason}, -1)
}

// Findings returns what the product has reported so far, in order. A finding that was reported before an answer is there
// when the answer is.
func (a *Agent) Findings() []sdk.Finding {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.findings)
}

// WaitFindings returns the findings when there are at least n; the test fails if that takes longer than Options.Timeout.
func (a *Agent) WaitFindings(n int) []sdk.Finding {
	a.t.Helper()
	a.wait("findings", func() bool { return len(a.findings) >= n })
	return a.Findings()
}

// Subscription returns what the product has subscribed to last.
func (a *Agent) Subscription() *productv1.Subscribe {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.subscribed
}

// Faults returns the breaches of the protocol so far; the test fails at its end if there are any.
func (a *Agent) Faults() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.faults)
}

// SendUnknown sends a frame of a kind that this protocol does not have, as a newer agent may.
func (a *Agent) SendUnknown(kind uint16) {
	a.t.Helper()
	a.send(productv1.Header{Kind: productv1.FrameKind(kind)}, nil, -1)
}

// Unsupported returns the kinds of frames that the product said it does not know.
func (a *Agent) Unsupported() []uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.unsupported)
}

// WaitUnsupported returns them when there are at least n; the test fails if that takes longer than Options.Timeout. What
// was sent before the unknown frame has then been read.
func (a *Agent) WaitUnsupported(n int) []uint32 {
	a.t.Helper()
	a.wait("Unsupported", func() bool { return len(a.unsupported) >= n })
	return a.Unsupported()
}
