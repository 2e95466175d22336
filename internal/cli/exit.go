package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"bailey/agent/config"
	"bailey/agent/control"
	controlv1 "bailey/api/control/v1"
	"bailey/internal/command"
	"bailey/internal/passphrase"

	"connectrpc.com/connect"
)

// The exit codes of bailey; docs/cli.md lists them for scripts.
const (
	ExitOK         = 0 // done, or what was checked is so
	ExitFailed     = 1 // the operation failed, or what was checked is not so
	ExitUsage      = 2 // the command line is wrong
	ExitNoAgent    = 3 // no agent is running
	ExitPermission = 4 // this needs root
	ExitConfig     = 5 // the configuration file is wrong
	ExitNotFound   = 6 // no such product or folder
	ExitConflict   = 7 // another agent is in the way, or the object's present state is
)

// ExitCodes describes every exit code, in the words of docs/cli.md.
func ExitCodes() []string {
	return []string{
		ExitOK:         "done; or what was checked is so",
		ExitFailed:     "the operation failed; or what was checked is not so (`doctor`, `selftest`, `journal verify`)",
		ExitUsage:      "the command line is wrong, or an approval is missing",
		ExitNoAgent:    "no agent is running in the chosen run directory",
		ExitPermission: "not permitted: this needs root",
		ExitConfig:     "the configuration file is wrong",
		ExitNotFound:   "no such product, folder or method",
		ExitConflict:   "another agent is in the way, or the product's present state is",
	}
}

// failure is an error with its exit code and what the operator can do.
type failure struct {
	code    int
	message string
	hint    string
}

func (f *failure) Error() string { return f.message }

// silent ends the program with a code when everything has been said on stdout already.
type silent int

func (silent) Error() string { return "" }

// report prints err as one sentence with its remedy and returns the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return ExitOK
	}
	f := a.explain(err)
	if f.message != "" {
		a.note("%s", command.Report(f.message, f.hint))
	}
	return f.code
}

// explain is the only place where errors become exit codes.
func (a *app) explain(err error) *failure {
	var f *failure
	var s silent
	var ce *connect.Error
	var cfg *config.Error
	var fault *control.Fault
	var typed *passphrase.Error
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &s):
		return &failure{code: int(s)}
	case errors.As(err, &cfg):
		return &failure{ExitConfig, err.Error(), cfg.Hint()}
	case errors.As(err, &typed):
		return &failure{ExitUsage, err.Error(), typed.Hint()}
	case errors.As(err, &ce):
		return a.explainConnect(ce)
	case errors.As(err, &fault):
		return &failure{faultCode(fault.Class), err.Error(), fault.Hint}
	case errors.Is(err, syscall.EPIPE), errors.Is(err, context.Canceled):
		return &failure{code: ExitFailed} // the reader left, or the operator interrupted: nobody needs a sentence
	case errors.Is(err, fs.ErrPermission):
		return &failure{ExitPermission, err.Error(), rootHint()}
	}
	return &failure{ExitFailed, err.Error(), hintOf(err)}
}

// hintOf returns the hint of an error of the agent's parts.
func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

func faultCode(c control.Class) int {
	switch c {
	case control.Invalid:
		return ExitUsage
	case control.NotFound:
		return ExitNotFound
	case control.Exists, control.Refused:
		return ExitConflict
	}
	return ExitFailed
}

// explainConnect explains an error of the control API, or of the way to it.
func (a *app) explainConnect(err *connect.Error) *failure {
	hint := ""
	for _, d := range err.Details() {
		if v, verr := d.Value(); verr == nil {
			if h, ok := v.(*controlv1.ErrorHint); ok {
				hint = h.GetHint()
			}
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return a.noAgent()
	case errors.Is(err, fs.ErrPermission):
		return &failure{ExitPermission, "this user may not talk to the agent at " + a.socket(), rootHint()}
	}
	message := strings.TrimSuffix(err.Message(), ".")
	switch err.Code() {
	case connect.CodeInvalidArgument:
		return &failure{ExitUsage, message, hint}
	case connect.CodeNotFound, connect.CodeUnimplemented:
		return &failure{ExitNotFound, message, hint}
	case connect.CodeAlreadyExists, connect.CodeFailedPrecondition, connect.CodeAborted:
		return &failure{ExitConflict, message, hint}
	case connect.CodePermissionDenied, connect.CodeUnauthenticated:
		return &failure{ExitPermission, message, rootHint()}
	case connect.CodeUnavailable:
		return a.gone(message)
	case connect.CodeCanceled:
		return &failure{code: ExitFailed}
	}
	return &failure{ExitFailed, message, hint}
}

// noAgent says that nobody listens on the socket.
func (a *app) noAgent() *failure {
	if message, hint := a.keeperSays(); message != "" {
		return &failure{ExitNoAgent, message, hint}
	}
	hint := "start it with `bailey agent`"
	if a.run != DefaultRun {
		hint = "start it with `bailey agent --run " + a.run + "`, or name another run directory with --run"
	}
	return &failure{ExitNoAgent, "the agent is not running (no socket at " + a.socket() + ")", hint}
}

// gone says that the agent ended while it was being talked to.
func (a *app) gone(message string) *failure {
	return &failure{ExitNoAgent, message, "look at its log, and start it again with `bailey agent`"}
}

func rootHint() string {
	if os.Geteuid() == 0 {
		return "root itself was refused; look for a security module or a mount option that forbids it"
	}
	return "run it as root, e.g. with sudo"
}
