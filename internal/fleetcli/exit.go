package fleetcli

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"bailey/internal/command"
	"bailey/internal/passphrase"
	"bailey/internal/sealedkey"
	"bailey/update/publish"
	"bailey/update/trust"
)

// The exit codes of bailey-fleet; docs/updates.md lists them for scripts.
const (
	ExitOK       = 0 // done, or what was verified is so
	ExitFailed   = 1 // the operation failed, or what was verified is not so
	ExitUsage    = 2 // the command line is wrong
	ExitKeys     = 3 // not enough keys are at hand, or a passphrase is wrong
	ExitNotFound = 6 // no such repository, file or role
	ExitConflict = 7 // it is there already, or somebody else changes the repository
)

// failure is an error with its exit code and what the operator can do.
type failure struct {
	code    int
	message string
	hint    string
}

func (f *failure) Error() string { return f.message }

// report prints err as one sentence with its remedy and returns the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return ExitOK
	}
	f := explain(err)
	if f.message != "" {
		a.note("%s", command.Report(f.message, f.hint))
	}
	return f.code
}

// explain is the only place where errors become exit codes.
func explain(err error) *failure {
	var f *failure
	var typed *passphrase.Error
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &typed):
		return &failure{ExitUsage, err.Error(), typed.Hint()}
	case errors.Is(err, syscall.EPIPE), errors.Is(err, context.Canceled):
		return &failure{code: ExitFailed} // the reader left, or the operator interrupted
	case errors.Is(err, publish.ErrSigners):
		return &failure{ExitKeys, err.Error(), "name the directory or the files of the keys with --keys or --key"}
	case errors.Is(err, sealedkey.ErrPassphrase):
		return &failure{ExitKeys, err.Error(), ""}
	case errors.Is(err, publish.ErrExists), errors.Is(err, syscall.EWOULDBLOCK), errors.Is(err, fs.ErrExist):
		return &failure{ExitConflict, err.Error(), ""}
	case errors.Is(err, publish.ErrNoRole):
		return &failure{ExitNotFound, err.Error(), "add it with `bailey-fleet repo vendor add`"}
	case errors.Is(err, fs.ErrNotExist):
		return &failure{ExitNotFound, err.Error(), ""}
	case errors.Is(err, trust.ErrExpired):
		return &failure{ExitFailed, err.Error(), "sign it again with `bailey-fleet repo renew`"}
	}
	return &failure{ExitFailed, err.Error(), ""}
}
