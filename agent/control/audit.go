package control

import (
	"context"
	"errors"
	"path"
	"unicode/utf8"

	controlv1 "bailey/api/control/v1"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// reading lists the methods that change nothing. Everything else is an action and told to Config.Audit: a method that is
// added is an action until it is listed here.
var reading = map[string]bool{
	"Status": true, "Health": true, "Events": true, "ProductPlan": true, "ProductList": true, "ProductShow": true, "ProductLogs": true,
	"CacheShow": true, "BrakeList": true, "RuleList": true, "UpdateList": true, "UpdatePlan": true, "UpdateHistory": true,
}

// Action is a request that may change something.
type Action struct {
	Method  string // of the ControlService, e.g. ProductGrant
	Request []byte // its JSON, cut after maxAudited bytes; empty for a stream's
	Cut     bool
	PID     uint32 // who connected, as the kernel recorded it
	UID     uint32
	GID     uint32
}

// maxAudited bounds what is told of a request's content.
const maxAudited = 16 << 10

// errPanicked is how an action ends that never returned.
var errPanicked = errors.New("the agent failed at this request")

// auditor tells Config.Audit of actions before they are carried out, and of how they ended before the reply goes out. What
// Config.Permit refuses ends there.
type auditor struct {
	audit  func(Action) (done func(error))
	permit func(method string) error
}

var _ connect.Interceptor = (*auditor)(nil)

// WrapUnary audits methods with one request and one response.
func (a *auditor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		method := path.Base(r.Spec().Procedure)
		if reading[method] {
			return next(ctx, r)
		}
		act := actionOf(ctx, method)
		if m, ok := r.Any().(proto.Message); ok {
			if text, err := MarshalJSON(withoutToken(m)); err == nil {
				act.Request, act.Cut = cut(text)
			}
		}
		err := errPanicked
		done := a.audit(act)
		defer func() { done(err) }()
		if err = a.permit(method); err != nil {
			err = toConnect(err)
			return nil, err
		}
		var out connect.AnyResponse
		out, err = next(ctx, r)
		return out, err
	}
}

// WrapStreamingClient leaves clients alone.
func (a *auditor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler audits streams.
func (a *auditor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, c connect.StreamingHandlerConn) error {
		method := path.Base(c.Spec().Procedure)
		if reading[method] {
			return next(ctx, c)
		}
		err := errPanicked
		done := a.audit(actionOf(ctx, method))
		defer func() { done(err) }()
		if err = a.permit(method); err != nil {
			err = toConnect(err)
			return err
		}
		err = next(ctx, c)
		return err
	}
}

func actionOf(ctx context.Context, method string) Action {
	act := Action{Method: method}
	if cred, ok := ctx.Value(peerKey{}).(*unix.Ucred); ok {
		act.PID, act.UID, act.GID = uint32(cred.Pid), cred.Uid, cred.Gid
	}
	return act
}

// withoutToken takes a token out of what is told: one that was refused may still count on another machine, or later. The journal
// names it by its nonce.
func withoutToken(m proto.Message) proto.Message {
	if _, ok := m.(*controlv1.UnlockRequest); ok {
		return &controlv1.UnlockRequest{}
	}
	return m
}

// cut bounds text, at the border of a character.
func cut(text []byte) ([]byte, bool) {
	if len(text) <= maxAudited {
		return text, false
	}
	n := maxAudited
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n], true
}
