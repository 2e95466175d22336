// Package selftest drives the whole path of a question on this very machine: kernel, agent, contained product, verdict, kernel. It
// starts a second agent that watches nothing but a scratch filesystem of its own, so it can run beside the machine's agent
// and delays nobody. It is not a benchmark and not a test of the machine's own products.
//
// Invariant: the second agent is ended and the scratch filesystem is unmounted before Run returns. Killed, it takes the agent
// with it and leaves an empty mount point with "bailey-selftest" in its name.
package selftest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// Result is one check's outcome.
type Result struct {
	Name   string        `json:"name"`
	OK     bool          `json:"ok"`
	Detail string        `json:"detail"` // what was seen; why it failed
	Took   time.Duration `json:"took"`   // nanoseconds
}

// Options says how to run.
type Options struct {
	// Program is the path of the bailey to test; it is started as the agent and, contained, as the product.
	Program string
	// Report is called with each result, in order.
	Report func(Result)
}

// Deadlines of the second agent: what a late product may cost at most.
const (
	execDeadline = 1 * time.Second
	openDeadline = 300 * time.Millisecond
	// grace is what a verdict may come late on a busy machine before the check fails.
	grace = 500 * time.Millisecond
)

// cachedOpens is how often a file with a cached verdict is opened.
const cachedOpens = 1000

// Run makes every check and reports it. It returns an error only when there was no way to check: then something could not be
// set up, or ctx ended.
func Run(ctx context.Context, o Options) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	y, err := newYard()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, y.close()) }()

	a, err := check(ctx, o.Report, "agent_serves", func(ctx context.Context) (*agent, string, error) { return startAgent(ctx, o.Program, y) })
	if err != nil {
		return err
	}
	steps := []struct {
		name string
		do   func(context.Context) (string, error)
	}{
		{"product_runs_contained", func(ctx context.Context) (string, error) { return a.installProduct(ctx, o.Program) }},
		{"event_seen", a.eventSeen},
		{"unknown_binary_refused", a.unknownRefused},
		{"descriptor_readable", a.descriptorReadable},
		{"cached_allow_not_asked", a.cachedNotAsked},
		{"changed_file_asked_again", a.changedAsked},
		{"late_product_defaulted", a.lateDefaulted},
	}
	for i, s := range steps {
		_, serr := check(ctx, o.Report, s.name, func(ctx context.Context) (*agent, string, error) {
			detail, err := s.do(ctx)
			return a, detail, err
		})
		if serr != nil && (i == 0 || ctx.Err() != nil) {
			break // without a product nothing else can be so
		}
	}
	_, _ = check(context.WithoutCancel(ctx), o.Report, "agent_stops", func(context.Context) (*agent, string, error) {
		detail, err := a.stop()
		return a, detail, err
	})
	return ctx.Err()
}

// patience bounds one check.
const patience = 30 * time.Second

// check runs one check and reports it with its time.
func check(ctx context.Context, report func(Result), name string, do func(context.Context) (*agent, string, error)) (*agent, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	start := time.Now()
	a, detail, err := do(ctx)
	r := Result{Name: name, OK: err == nil, Detail: detail, Took: time.Since(start)}
	if err != nil {
		r.Detail = err.Error()
	}
	report(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return a, nil
}
