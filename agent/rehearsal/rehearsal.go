package rehearsal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"bailey/agent/event"
	"bailey/agent/product"
	"bailey/agent/rehearsal/corpus"
	productv1 "bailey/api/product/v1"
)

// Config is what a rehearsal works with. Try, Welcome and IsCritical have no default.
type Config struct {
	Product   string
	Installed string        // the release that is installed; empty if none
	Asked     event.KindSet // what it is asked about now

	// Try starts the release. The Trial is the rehearsal's to close.
	Try     func(product.Host) (*product.Trial, error)
	Welcome func(product.Instance) *productv1.Welcome // what an agent says first

	// TryInstalled starts the installed release as Try does the new one, after that has ended; may be nil.
	TryInstalled func(product.Host) (*product.Trial, error)

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
	Again        time.Duration // it must live when it is started once more; default 1 s
	Budget       time.Duration // processor time for one question, on average; default 160 ms
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Files: cmp.Or(l.Files, 20), PackageFiles: cmp.Or(l.PackageFiles, 5),
		Start: cmp.Or(l.Start, 30*time.Second), Answer: cmp.Or(l.Answer, 10*time.Second), Total: cmp.Or(l.Total, 40*time.Second),
		Linger: cmp.Or(l.Linger, 5*time.Second), Again: cmp.Or(l.Again, time.Second), Budget: cmp.Or(l.Budget, 160*time.Millisecond),
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
	cfg      Config
	peer     *peer
	trial    *product.Trial
	steps    []step
	until    time.Time // from when on nothing more is asked
	shown    time.Time
	report   Report
	mute     bool  // it reads its events too slowly: it gets no more
	weighed  bool  // what it has used is in the report
	killed   bool  // for want of memory
	compared bool  // the installed release was asked about what this one denies of the corpus
	ownFault error // what is wrong with its own tests
}

// failure is what ends a rehearsal early: the release is not good.
type failure struct{ reason string }

func (f *failure) Error() string { return f.reason }

func failed(format string, args ...any) error { return &failure{fmt.Sprintf(format, args...)} }

// Run rehearses one release. An error says that nothing was found out; a release that is not good is a Report that has not
// passed. It takes seconds, and at most a minute and a half: Start, Total, Answer and Linger of the Limits; as long again if the installed release
// must be asked what the new one denies of the corpus, and answers as slowly.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	cfg.Limits = cfg.Limits.withDefaults()
	r := &rehearsal{cfg: cfg, peer: newPeer(cfg.Welcome), report: Report{Product: cfg.Product, Installed: cfg.Installed, Began: time.Now()}}
	steps, err := gather(ctx, cfg.Past, cfg.Product)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		r.report.Notes = append(r.report.Notes, "the past is not whole: "+err.Error())
	}
	r.steps = steps
	bad, err := r.try(ctx)
	if err == nil && bad == nil {
		err = r.askInstalled(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("rehearse %s: %w", cfg.Product, err)
	}
	r.judge(bad)
	r.report.Took = time.Since(r.report.Began)
	return &r.report, nil
}

// try runs the release from its start to its end. What it returns first is why it does not pass, if that is what ended it.
func (r *rehearsal) try(ctx context.Context) (bad *failure, err error) {
	c, err := corpus.Load()
	if err != nil {
		return nil, err
	}
	r.progress("starting", 0, 1)
	var self *product.SelfTestError
	if r.trial, err = r.cfg.Try(r.peer); errors.As(err, &self) {
		r.report.Release, r.report.Log = self.Release, self.Log
		return &failure{self.Error()}, nil
	} else if err != nil {
		return nil, err
	}
	tests, fault := corpus.OpenOwn(r.trial.Folder())
	if r.ownFault = fault; fault != nil {
		tests = &corpus.Own{}
	}
	if err = r.play(ctx, c, tests); err == nil && !r.hopeless() {
		err = r.live(ctx)
	}
	if errors.As(err, &bad) {
		err = nil
	}
	r.progress("judging", 1, 1)
	if !r.weighed {
		r.weigh()
	}
	r.trial.Stop()
	r.report.Log = r.trial.Log(logShown)
	return bad, errors.Join(err, tests.Close(), r.trial.Close())
}

func (r *rehearsal) progress(stage string, done, of int) {
	if r.cfg.Progress != nil {
		r.cfg.Progress(Progress{stage, done, of})
	}
}

// play waits until the release is ready, and tells and asks it everything.
func (r *rehearsal) play(ctx context.Context, c *corpus.Corpus, tests *corpus.Own) error {
	r.report.Release = r.trial.Request.Release
	if note := r.trial.Note(); note != "" {
		r.report.Notes = append(r.report.Notes, note)
	}
	if err := r.begins(ctx); err != nil {
		return err
	}
	r.addCritical()
	r.addCorpus(c)
	r.addOwn(tests)
	r.until = time.Now().Add(r.cfg.Limits.Total)
	pace := pace{patience: r.cfg.Limits.Total * 2 / 3} // whoever answers slowly is still asked all of it
	for i, s := range r.steps {
		if time.Since(r.shown) > 200*time.Millisecond {
			r.shown = time.Now()
			r.progress("asking", i, len(r.steps))
		}
		err := pace.rest(ctx)
		switch {
		case err != nil:
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

// mark is a moment in a trial.
type mark struct {
	at      time.Time
	delayed time.Duration
}

func (r *rehearsal) mark() mark { return mark{time.Now(), r.trial.Delayed()} }

// late says that the release is too slow, unless it was the machine that gave it no processor for half of the time since a moment: then nothing was
// found out, and the error is product.ErrBusy.
func (r *rehearsal) late(since mark, format string, args ...any) error {
	if waited := r.trial.Delayed() - since.delayed; waited > time.Since(since.at)/2 {
		return fmt.Errorf("%w: the machine is busy, and the release waited %v of %v for a processor", product.ErrBusy,
			waited.Round(time.Millisecond), time.Since(since.at).Round(time.Millisecond))
	}
	return failed(format, args...)
}

// begins waits until it says what it wants.
func (r *rehearsal) begins(ctx context.Context) error {
	begin := r.mark()
	err := r.wait(ctx, r.peer.ready, r.cfg.Limits.Start)
	if errors.Is(err, errLate) {
		return r.late(begin, "it did not say what it wants within %v", r.cfg.Limits.Start)
	}
	return err
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
	how := r.trial.Reason()
	if !strings.HasPrefix(how, "exited") {
		how = "was " + how // ended by a signal, out of memory
	}
	if a := r.peer.oldest(); a != nil {
		return failed("it %s while it was asked about %s of %s", how, a.q.kind, a.q.file.Path)
	}
	return failed("it %s", how)
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
