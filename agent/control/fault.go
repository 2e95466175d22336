package control

import (
	"context"
	"errors"

	controlv1 "bailey/api/control/v1"

	"connectrpc.com/connect"
)

// Class says what kind of error a Fault is.
type Class uint8

// The classes.
const (
	Internal    Class = iota // the agent failed
	Invalid                  // the request makes no sense
	NotFound                 // no such product or folder
	Exists                   // it is there already
	Refused                  // not possible in the present state, or not what was approved
	Unavailable              // the agent is stopping or lacks what this needs
	Exhausted                // a limit is reached
)

// codes is the only place where classes become Connect codes; cmd/bailey/cli maps those to exit codes.
var codes = map[Class]connect.Code{
	Internal:    connect.CodeInternal,
	Invalid:     connect.CodeInvalidArgument,
	NotFound:    connect.CodeNotFound,
	Exists:      connect.CodeAlreadyExists,
	Refused:     connect.CodeFailedPrecondition,
	Unavailable: connect.CodeUnavailable,
	Exhausted:   connect.CodeResourceExhausted,
}

// Fault is an error that an operator reads.
type Fault struct {
	Class   Class
	Message string // one sentence without a full stop
	Hint    string // what to do about it, empty if nothing
	Err     error  // the cause, shown after the message
}

// Error returns the message with its cause.
func (f *Fault) Error() string {
	if f.Err != nil {
		return f.Message + ": " + f.Err.Error()
	}
	return f.Message
}

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }

// toConnect is the only place where errors become Connect errors.
func toConnect(err error) error {
	var done *connect.Error
	if errors.As(err, &done) {
		return done
	}
	code, hint := connect.CodeInternal, ""
	var f *Fault
	var hinted interface{ Hint() string }
	switch {
	case errors.As(err, &f):
		code, hint = codes[f.Class], f.Hint
	case errors.Is(err, context.Canceled):
		code = connect.CodeCanceled
	case errors.Is(err, context.DeadlineExceeded):
		code = connect.CodeDeadlineExceeded
	}
	if hint == "" && errors.As(err, &hinted) {
		hint = hinted.Hint()
	}
	out := connect.NewError(code, err)
	if hint != "" {
		if detail, derr := connect.NewErrorDetail(&controlv1.ErrorHint{Hint: hint}); derr == nil {
			out.AddDetail(detail)
		}
	}
	return out
}
