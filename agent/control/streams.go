package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"bailey/agent/event"
	controlv1 "bailey/api/control/v1"
	productv1 "bailey/api/product/v1"

	"connectrpc.com/connect"
)

// slot takes one of the places for streams; the returned function gives it back.
func (s *service) slot() (func(), error) {
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots }, nil
	default:
		return nil, &Fault{Class: Exhausted, Message: fmt.Sprintf("%d streams are open already", cap(s.slots)), Hint: "close one of the running `bailey events` or `bailey product logs`"}
	}
}

// Events streams a tap. The caller's slowness blocks this goroutine alone: the tap drops and counts meanwhile. The first
// response has no event: it says that the tap is in place.
func (s *service) Events(ctx context.Context, r *connect.Request[controlv1.EventsRequest], out *connect.ServerStream[controlv1.EventsResponse]) error {
	kinds, err := parseKinds(r.Msg.GetKinds())
	if err != nil {
		return toConnect(err)
	}
	free, err := s.slot()
	if err != nil {
		return toConnect(err)
	}
	defer free()
	tap, err := s.cfg.Agent.Tap(kinds)
	if err != nil {
		return toConnect(fmt.Errorf("tap the events: %w", err))
	}
	defer tap.Close()
	if err := out.Send(&controlv1.EventsResponse{}); err != nil {
		return err
	}
	bounded := ctx
	if d := r.Msg.GetFor(); d > 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, time.Duration(min(d, uint64(maxFor))))
		defer cancel()
	}
	err = s.forward(bounded, tap, r.Msg, out)
	switch {
	case ctx.Err() == nil && bounded.Err() != nil, errors.Is(err, io.EOF):
		return nil // the time asked for is over, or there is no more
	case ctx.Err() != nil:
		return toConnect(&Fault{Class: Unavailable, Message: "the agent is stopping"})
	}
	return toConnect(err)
}

const maxFor = 365 * 24 * time.Hour

// forward sends what the tap has until it ends or out fails.
func (s *service) forward(ctx context.Context, tap Tap, r *controlv1.EventsRequest, out *connect.ServerStream[controlv1.EventsResponse]) error {
	var buf []byte
	var lost uint64
	for {
		e, l, err := tap.Next(ctx)
		if err != nil {
			return err
		}
		lost += l
		if !concerns(e, r.GetProducts()) || r.GetDenied() && !denies(e) {
			continue
		}
		resp := &controlv1.EventsResponse{Lost: lost}
		lost = 0
		if resp.Event, buf, err = s.encode(buf, e); err != nil {
			return err
		}
		if r.GetAncestors() && e.Process != nil {
			for _, p := range s.cfg.Agent.Ancestors(e.Process.Key) {
				var carrier *productv1.Event
				if carrier, buf, err = s.encode(buf, &event.Event{Process: p}); err != nil {
					return err
				}
				resp.Ancestors = append(resp.Ancestors, carrier.GetProcess())
			}
		}
		if err := out.Send(resp); err != nil {
			return err
		}
	}
}

// encode makes the API's message of an event, through the very encoding that products get.
func (s *service) encode(buf []byte, e *event.Event) (*productv1.Event, []byte, error) {
	buf = s.cfg.AppendEvent(buf[:0], e)
	m := &productv1.Event{}
	if err := m.UnmarshalVT(buf); err != nil {
		return nil, buf, fmt.Errorf("encode event %d: %w", e.Seq, err)
	}
	return m, buf, nil
}

// concerns reports whether e is of interest to a reader who named products. Events that belong to no product always are.
func concerns(e *event.Event, products []string) bool {
	if len(products) == 0 {
		return true
	}
	switch {
	case e.Finding != nil:
		return slices.Contains(products, e.Finding.Product)
	case e.Product != nil:
		return slices.Contains(products, e.Product.Product)
	case e.Verdict != nil:
		return slices.ContainsFunc(e.Verdict.Answers, func(a event.Answer) bool { return slices.Contains(products, a.Product) })
	}
	return true
}

// denies reports whether e is no verdict, or one that somebody denied.
func denies(e *event.Event) bool {
	if e.Verdict == nil || !e.Verdict.Decision.Allow {
		return true
	}
	return slices.ContainsFunc(e.Verdict.Answers, func(a event.Answer) bool { return a.Outcome == event.Overridden && !a.Shadow })
}

func parseKinds(words []string) (event.KindSet, error) {
	if len(words) == 0 {
		return event.KindsOf(event.Kinds()...), nil
	}
	var kinds []event.Kind
	for _, w := range words {
		k, err := event.ParseKind(w)
		if err != nil {
			return 0, &Fault{Class: Invalid, Message: err.Error()}
		}
		kinds = append(kinds, k)
	}
	return event.KindsOf(kinds...), nil
}

// ProductLogs streams a product's kept output and, if asked to follow, what comes.
func (s *service) ProductLogs(ctx context.Context, r *connect.Request[controlv1.ProductLogsRequest], out *connect.ServerStream[controlv1.ProductLogsResponse]) error {
	if err := checkName(r.Msg.GetName()); err != nil {
		return toConnect(err)
	}
	free, err := s.slot()
	if err != nil {
		return toConnect(err)
	}
	defer free()
	err = s.cfg.Products.Logs(ctx, r.Msg.GetName(), r.Msg.GetFollow(), func(data []byte) error {
		return out.Send(&controlv1.ProductLogsResponse{Data: data})
	})
	if ctx.Err() != nil {
		return toConnect(&Fault{Class: Unavailable, Message: "the agent is stopping"})
	}
	if err != nil {
		return toConnect(err)
	}
	return nil
}

// ProductRehearse streams how far a rehearsal is, and then its report.
func (s *service) ProductRehearse(ctx context.Context, r *connect.Request[controlv1.ProductRehearseRequest], out *connect.ServerStream[controlv1.ProductRehearseResponse]) error {
	if err := checkApproved(r.Msg.GetPath(), r.Msg.GetApproved()); err != nil {
		return toConnect(err)
	}
	free, err := s.slot()
	if err != nil {
		return toConnect(err)
	}
	defer free()
	report, err := s.cfg.Products.Rehearse(ctx, r.Msg.GetPath(), r.Msg.GetApproved(), func(p *controlv1.RehearsalProgress) error {
		return out.Send(&controlv1.ProductRehearseResponse{Progress: p})
	})
	if err != nil {
		return toConnect(err)
	}
	return out.Send(&controlv1.ProductRehearseResponse{Report: report})
}
