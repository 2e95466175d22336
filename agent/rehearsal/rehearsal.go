package rehearsal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"bailey/agent/event"
	"bailey/agent/product"
	productv1 "bailey/api/product/v1"
	"bailey/internal/pathname"
)

// Config is what a rehearsal works with. Try, Welcome and IsCritical have no default.
type Config struct {
	Product   string
	Installed string        // the release that is installed; empty if none
	Asked     event.KindSet // what it is asked about now

	// Try starts the release. The Trial is the rehearsal's to close.
	Try     func(product.Host) (*product.Trial, error)
	Welcome func(product.Instance) *productv1.Welcome // what an agent says first

	Past     Past           // may be nil
	Critical []string       // paths of files that are not to be denied
	Asker    *event.Process // who asks about them

	IsCritical func(*event.File) bool
	Owned      func(*event.File) (owned, known bool) // whether a package owns a file; may be nil
	Limits     Limits
	Progress   func(Progress) // called now and then, on Run's goroutine; may be nil
}

// Limits are what a release fails by. Zero values mean the defaults.
type Limits struct {
	Files        int           // it denies so many files that were not denied before, and no more; default 20
	PackageFiles int           // of them, files that packages own; default 5
	Start        time.Duration // until it says what it wants; default 30 s
	Answer       time.Duration // for one answer, at idle priority; default 10 s
	Total        time.Duration // after which nothing more is asked; default 40 s
	Linger       time.Duration // it must live after the last of it; default 5 s
	Budget       time.Duration // processor time for one question, on average; default 160 ms
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Files: cmp.Or(l.Files, 20), PackageFiles: cmp.Or(l.PackageFiles, 5),
		Start: cmp.Or(l.Start, 30*time.Second), Answer: cmp.Or(l.Answer, 10*time.Second), Total: cmp.Or(l.Total, 40*time.Second),
		Linger: cmp.Or(l.Linger, 5*time.Second), Budget: cmp.Or(l.Budget, 160*time.Millisecond),
	}
}

// Progress is how far a rehearsal is.
type Progress struct {
	Stage string // starting, asking, watching, judging
	Done  int    // steps
	Of    int
}

// rehearsal is one in progress.
type rehearsal struct {
	cfg    Config
	peer   *peer
	trial  *product.Trial
	steps  []step
	until  time.Time // from when on nothing more is asked
	shown  time.Time
	report Report
	mute   bool // it reads its events too slowly: it gets no more
}

// failure is what ends a rehearsal early: the release is not good.
type failure struct{ reason string }

func (f *failure) Error() string { return f.reason }

func failed(format string, args ...any) error { return &failure{fmt.Sprintf(format, args...)} }

// Run rehearses one release. An error says that nothing was found out; a release that is not good is a Report that has not
// passed. It takes seconds, and at most a minute and a half: Start, Total, Answer and Linger of the Limits.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	cfg.Limits = cfg.Limits.withDefaults()
	r := &rehearsal{cfg: cfg, peer: newPeer(cfg.Welcome), report: Report{Product: cfg.Product, Installed: cfg.Installed, Began: time.Now()}}
	steps, err := gather(cfg.Past, cfg.Product)
	if err != nil {
		r.report.Notes = append(r.report.Notes, "the past is not whole: "+err.Error())
	}
	r.steps = steps
	r.progress("starting", 0, 1)
	if r.trial, err = cfg.Try(r.peer); err != nil {
		return nil, err
	}
	err = r.play(ctx)
	var bad *failure
	if err == nil || errors.As(err, &bad) {
		r.progress("judging", 1, 1)
		r.judge(bad)
		err = nil
	}
	err = errors.Join(err, r.trial.Close())
	r.report.Took = time.Since(r.report.Began)
	if err != nil {
		return nil, fmt.Errorf("rehearse %s: %w", cfg.Product, err)
	}
	return &r.report, nil
}

func (r *rehearsal) progress(stage string, done, of int) {
	if r.cfg.Progress != nil {
		r.cfg.Progress(Progress{stage, done, of})
	}
}

// play waits until the release is ready, and tells and asks it everything.
func (r *rehearsal) play(ctx context.Context) error {
	r.report.Release = r.trial.Request.Release
	if note := r.trial.Note(); note != "" {
		r.report.Notes = append(r.report.Notes, note)
	}
	if err := r.wait(ctx, r.peer.ready, r.cfg.Limits.Start); err != nil {
		if errors.Is(err, errLate) {
			return failed("it did not say what it wants within %v", r.cfg.Limits.Start)
		}
		return err
	}
	r.addCritical()
	r.until = time.Now().Add(r.cfg.Limits.Total)
	for i, s := range r.steps {
		if time.Since(r.shown) > 200*time.Millisecond {
			r.shown = time.Now()
			r.progress("asking", i, len(r.steps))
		}
		var err error
		switch {
		case s.event != nil:
			err = r.tell(ctx, s.event)
		case s.question != nil:
			err = r.ask(ctx, s.question)
		}
		if err != nil {
			return err
		}
	}
	return r.drain(ctx)
}

// errLate says that what was waited for did not happen in time.
var errLate = errors.New("it did not happen in time")

// wait waits for something that the release does.
func (r *rehearsal) wait(ctx context.Context, does <-chan struct{}, patience time.Duration) error {
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-does:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.trial.Done():
		return r.crashed()
	case <-r.peer.Done():
		return r.hungUp()
	case <-t.C:
		return errLate
	}
}

// pause lets the release go on for a while.
func (r *rehearsal) pause(ctx context.Context, d time.Duration) error {
	if err := r.wait(ctx, nil, d); !errors.Is(err, errLate) {
		return err
	}
	return nil
}

// crashed says how it ended, and what it was doing.
func (r *rehearsal) crashed() error {
	if a := r.peer.oldest(); a != nil {
		return failed("it %s while it was asked about %s of %s", r.trial.Reason(), a.q.kind, a.q.file.Path)
	}
	return failed("it %s", r.trial.Reason())
}

// hungUp is for a conversation that is over: it is ending, or it broke the protocol.
func (r *rehearsal) hungUp() error {
	select {
	case <-r.trial.Done():
		return r.crashed()
	case <-time.After(time.Second): // one that died is reaped within it
	}
	if err := r.peer.Err(); err != nil {
		return failed("it broke the protocol: %v", err)
	}
	return failed("it closed its socket")
}

// addCritical adds a question about each critical file that it would be asked about.
func (r *rehearsal) addCritical() {
	_, kinds := r.peer.wants()
	for _, path := range r.cfg.Critical {
		fd, f, err := look(path)
		if err != nil {
			continue // a file of another root, or gone
		}
		closeFD(fd)
		for _, k := range []event.Kind{event.Exec, event.Open} {
			if kinds.Has(k) && (k == event.Exec && f.Mode&0o111 != 0 || k == event.Open && r.inScope(path)) {
				r.steps = append(r.steps, step{question: &question{kind: k, process: r.cfg.Asker, file: f, critical: true}})
			}
		}
	}
}

// inScope reports whether it may be asked about opens of a path.
func (r *rehearsal) inScope(path string) bool {
	return slices.ContainsFunc(r.peer.scope, func(dir string) bool { return pathname.Below(path, dir) })
}

// ask asks one question as soon as there is room for it.
func (r *rehearsal) ask(ctx context.Context, q *question) error {
	if _, kinds := r.peer.wants(); !kinds.Has(q.kind) || q.kind == event.Open && !r.inScope(q.file.Path) {
		return nil // it would not be asked
	}
	if time.Now().After(r.until) {
		r.report.Unasked++
		return nil
	}
	fd, err := open(&q.file)
	if err != nil {
		if q.recorded {
			r.report.Changed++
		}
		return nil
	}
	defer closeFD(fd)
	if err := r.room(ctx); err != nil {
		return err
	}
	q.critical = q.critical || r.cfg.IsCritical(&q.file)
	if err := r.send(ctx, func() error { return r.peer.ask(q, fd, r.cfg.Limits.Answer) }); err != nil {
		return err
	}
	if q.recorded {
		r.report.Recorded++
	} else {
		r.report.Critical++
	}
	return nil
}

// room waits until it has answered enough to be asked one more.
func (r *rehearsal) room(ctx context.Context) error {
	patience := r.cfg.Limits.Answer
	if a := r.peer.oldest(); a != nil {
		patience = max(time.Until(a.sent.Add(patience)), time.Millisecond)
	}
	err := r.wait(ctx, r.peer.free, patience)
	if !errors.Is(err, errLate) {
		return err
	}
	if a := r.peer.oldest(); a != nil {
		return failed("it does not answer: %s of %s waited %v", a.q.kind, a.q.file.Path, r.cfg.Limits.Answer)
	}
	return failed("it does not answer within %v", r.cfg.Limits.Answer)
}

// send tries again while the release's socket is full.
func (r *rehearsal) send(ctx context.Context, f func() error) error {
	const step = 5 * time.Millisecond
	for end := time.Now().Add(r.cfg.Limits.Answer); ; {
		err := f()
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, event.ErrFull):
			return r.hungUp()
		case time.Now().After(end):
			return failed("it does not read what it is sent")
		}
		if err := r.pause(ctx, step); err != nil {
			return err
		}
	}
}

// tell tells it an event. One that is too slow for its events loses them as on every machine, and that is said.
func (r *rehearsal) tell(ctx context.Context, e *event.Event) error {
	if kinds, _ := r.peer.wants(); r.mute || !kinds.Has(e.Kind) || time.Now().After(r.until) {
		return nil
	}
	const step = 2 * time.Millisecond
	for end := time.Now().Add(r.cfg.Limits.Answer); r.peer.seq-min(r.peer.seq, r.peer.acked.Load()) >= eventWindow; {
		if time.Now().After(end) {
			r.mute = true
			r.report.Notes = append(r.report.Notes, fmt.Sprintf("it reads its events too slowly: %d waited for %v", eventWindow, r.cfg.Limits.Answer))
			return nil
		}
		if err := r.pause(ctx, step); err != nil {
			return err
		}
	}
	if err := r.send(ctx, func() error { return r.peer.tell(e) }); err != nil {
		return err
	}
	r.report.Events++
	return nil
}

// drain waits for what is open, and for the events that it has not handled.
func (r *rehearsal) drain(ctx context.Context) error {
	for range window {
		if err := r.room(ctx); err != nil {
			return err
		}
	}
	const step = 5 * time.Millisecond
	for end := time.Now().Add(r.cfg.Limits.Answer); !r.mute && r.peer.acked.Load() < r.peer.seq && time.Now().Before(end); {
		if err := r.pause(ctx, step); err != nil {
			return err
		}
	}
	return r.linger(ctx)
}

// linger watches it for some more time: some crash a while after their start, and some never stop to grow.
func (r *rehearsal) linger(ctx context.Context) error {
	r.progress("watching", len(r.steps), len(r.steps))
	return r.pause(ctx, r.cfg.Limits.Linger)
}
