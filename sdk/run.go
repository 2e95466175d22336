package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	productv1 "bailey/api/product/v1"
	"bailey/api/product/v1/wire"

	"golang.org/x/sys/unix"
)

// run owns every goroutine of the session and returns when all have ended.
func (s *Session) run(ctx context.Context) error {
	s.ctx, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	defer s.cancel(context.Canceled)
	reader, err := wire.NewReader(s.sock, true)
	if err != nil {
		return fmt.Errorf("read the agent's socket: %w", err)
	}
	defer func() { _ = s.sock.Close() }() // the conversation is over; nobody can use the error
	unhook := context.AfterFunc(ctx, func() { s.stop(ctx.Err(), PanicGrace) })
	defer unhook()

	var workers, events sync.WaitGroup
	for range max(s.product.Workers, 0) {
		workers.Go(s.work)
	}
	events.Go(s.deliver)

	err = s.guard(func() error { return s.read(reader) })
	reader.Close()
	s.rules.end()

	close(s.questions)
	s.inbox.close()
	s.drain(&workers, &events)
	return s.result(err)
}

// drain waits for the handlers until the grace is over, then ends their contexts and waits for them all the same: a
// handler that ignores its context is for the agent to kill.
func (s *Session) drain(groups ...*sync.WaitGroup) {
	s.mu.Lock()
	until := s.stopAt
	s.mu.Unlock()
	if until.IsZero() { // the agent is gone: nobody wants the answers
		s.cancel(io.ErrUnexpectedEOF)
	}
	timer := time.AfterFunc(time.Until(until), func() { s.cancel(context.Canceled) })
	defer timer.Stop()
	for _, g := range groups {
		g.Wait()
	}
}

// result says why the session ended: the first failure, a clean stop, or what the reader met.
func (s *Session) result(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var panicked *PanicError
	switch {
	case s.failure != nil:
		return s.failure
	case errors.As(err, &panicked):
		return panicked
	case !s.stopAt.IsZero():
		return nil
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the agent closed the socket: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// guard turns a panic of f into its error, tells it on the standard error and stops the session.
func (s *Session) guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			p := &PanicError{Value: v, Stack: debug.Stack()}
			fmt.Fprintf(s.product.Stderr, "product %s: %v\n%s", s.product.Name, p, p.Stack)
			s.stop(p, PanicGrace)
			err = p
		}
	}()
	return f()
}

// read handles frames until the socket ends or the agent breaks the protocol.
func (s *Session) read(r *wire.Reader) error {
	handed := false
	for {
		if handed && !r.Buffered() {
			// Blocking in recvmsg keeps this goroutine's processor until the runtime notices, 20 µs to 10 ms later. Let
			// the goroutine that was just woken run on it first, which is also the cheapest hand-off there is.
			runtime.Gosched()
			handed = false
		}
		f, err := r.Next()
		if err != nil {
			return err
		}
		if f.FD >= 0 && f.Kind != productv1.FrameQuestion {
			_ = unix.Close(f.FD) // not ours to use; nothing to report to
		}
		if err := s.frame(f); err != nil {
			return err
		}
		handed = handed || f.Kind != productv1.FrameQuestion || s.product.Workers > 0
	}
}

// frame handles one frame on the reading thread. The frequent kinds come first.
func (s *Session) frame(f wire.Frame) error {
	if s.welcome.Load() == nil && f.Kind != productv1.FrameWelcome {
		if f.FD >= 0 && f.Kind == productv1.FrameQuestion {
			_ = unix.Close(f.FD)
		}
		return fmt.Errorf("the agent's first frame is of kind %d, not a Welcome", f.Kind)
	}
	switch f.Kind {
	case productv1.FrameQuestion:
		s.received.question = max(s.received.question, f.Seq)
		return s.ask(f)
	case productv1.FrameEvent:
		s.received.event = max(s.received.event, f.Seq)
		s.inbox.add(f)
		return nil
	case productv1.FrameLost:
		s.inbox.add(f)
		return s.received.lost(f.Payload)
	case productv1.FrameWithdrawn:
		s.mu.Lock()
		q := s.asked[f.ID]
		s.mu.Unlock()
		if q != nil {
			q.withdraw()
		}
		return nil
	case productv1.FrameState:
		m := new(productv1.State)
		if err := m.UnmarshalVT(f.Payload); err != nil {
			return fmt.Errorf("decode state: %w", err)
		}
		s.setState(m)
		s.inbox.add(f)
		return nil
	case productv1.FrameSubscribed:
		m := new(productv1.Subscribed)
		if err := m.UnmarshalVT(f.Payload); err != nil {
			return fmt.Errorf("decode subscribed: %w", err)
		}
		s.setSubscribed(m)
		return nil
	case productv1.FrameWelcome:
		return s.greet(f.Payload)
	case productv1.FrameResume:
		return s.resume(f)
	case productv1.FrameStop:
		s.stop(nil, time.Duration(max(int64(f.Deadline-boottime()), 0)))
		return nil
	case productv1.FrameRuleStatus:
		return s.ruleStatus(f)
	case productv1.FrameUnsupported:
		return s.agentLacks(f.Payload)
	}
	return s.unsupported(f.Kind)
}

func (s *Session) unsupported(k productv1.FrameKind) error {
	b, err := (&productv1.Unsupported{FrameKind: uint32(k)}).MarshalVT()
	if err != nil {
		return fmt.Errorf("encode unsupported: %w", err)
	}
	return s.sock.Send(&productv1.Header{Kind: productv1.FrameUnsupported}, b, -1, wire.Block)
}

// greet handles Welcome: the author's OnReady, then the first subscription.
func (s *Session) greet(payload []byte) error {
	m := new(productv1.Welcome)
	if err := m.UnmarshalVT(payload); err != nil {
		return fmt.Errorf("decode welcome: %w", err)
	}
	if s.welcome.Load() != nil {
		return errors.New("the agent sent a second Welcome")
	}
	if m.GetProtocol() != productv1.Protocol {
		return fmt.Errorf("the agent speaks protocol %d, this product was built for %d", m.GetProtocol(), productv1.Protocol)
	}
	if s.product.Name != "" && m.GetProduct() != "" && s.product.Name != m.GetProduct() {
		return fmt.Errorf("the agent started this program as %q, but it is %q: correct the name in manifest.toml", m.GetProduct(), s.product.Name)
	}
	s.welcome.Store(m)
	s.setState(&productv1.State{Authority: m.GetAuthority()})
	if s.product.OnReady != nil {
		if err := s.product.OnReady(s); err != nil {
			return fmt.Errorf("get ready: %w", err)
		}
	}
	p := &s.product
	return s.Subscribe(Subscription{
		Events: p.Events, Questions: p.Questions, MuteExecutables: p.MuteExecutables,
		MutePaths: p.MutePaths, MutePathsInvert: p.MutePathsInvert,
	})
}
