package rehearsal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"bailey/agent/event"
	"bailey/internal/pathname"
)

// addCritical adds a question about each critical file that it would be asked about.
func (r *rehearsal) addCritical() {
	for _, path := range r.cfg.Critical {
		fd, f, err := look(path)
		if err != nil {
			continue // a file of another root, or gone
		}
		closeFD(fd)
		for _, k := range r.kindsOf(&f) {
			r.steps = append(r.steps, step{question: &question{kind: k, process: r.cfg.Asker, file: f, from: fromCritical, critical: true}})
		}
	}
}

// kindsOf are the questions that it would be asked about a file.
func (r *rehearsal) kindsOf(f *event.File) (out []event.Kind) {
	_, kinds := r.peer.wants()
	if kinds.Has(event.Exec) && f.Mode&0o111 != 0 {
		out = append(out, event.Exec)
	}
	if kinds.Has(event.Open) && r.inScope(f.Path) {
		out = append(out, event.Open)
	}
	return out
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
	fd, err := q.descriptor()
	switch {
	case err == nil:
	case q.from == fromPast:
		r.report.Changed++
		return nil
	case q.from == fromGood || q.from == fromOwn:
		return err // not the machine's doing
	default:
		return nil
	}
	defer closeFD(fd)
	if err := r.room(ctx); err != nil {
		return err
	}
	q.critical = q.critical || q.from < fromGood && r.cfg.IsCritical(&q.file)
	if err := r.send(ctx, func() error { return r.peer.ask(q, fd, r.cfg.Limits.Answer) }); err != nil {
		return err
	}
	switch rep := &r.report; q.from {
	case fromPast:
		rep.Recorded++
	case fromCritical:
		rep.Critical++
	case fromCorpus:
		rep.Corpus++
	case fromGood:
		rep.Good++
	case fromOwn:
		rep.Own++
	}
	return nil
}

// room waits until it has answered enough to be asked one more.
func (r *rehearsal) room(ctx context.Context) error {
	patience := r.cfg.Limits.Answer
	if a := r.peer.oldest(); a != nil {
		patience = max(time.Until(a.sent.Add(patience)), time.Millisecond)
	}
	err := r.wait(ctx, r.peer.free, patience/2)
	if !errors.Is(err, errLate) {
		return err
	}
	begin := r.mark()
	if err = r.wait(ctx, r.peer.free, patience/2); !errors.Is(err, errLate) {
		return err
	}
	if a := r.peer.oldest(); a != nil {
		return r.late(begin, "it does not answer: %s of %s waited %v", a.q.kind, a.q.file.Path, r.cfg.Limits.Answer)
	}
	return r.late(begin, "it does not answer within %v", r.cfg.Limits.Answer)
}

// send tries again while the release's socket is full.
func (r *rehearsal) send(ctx context.Context, f func() error) error {
	const step = 5 * time.Millisecond
	var begin mark
	for end := time.Now().Add(r.cfg.Limits.Answer); ; {
		err := f()
		if err != nil && begin.at.IsZero() {
			begin = r.mark()
		}
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, event.ErrFull):
			return r.hungUp()
		case time.Now().After(end):
			return r.late(begin, "it does not read what it is sent")
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
	if err := r.answered(ctx); err != nil {
		return err
	}
	const step = 5 * time.Millisecond
	for end := time.Now().Add(r.cfg.Limits.Answer); !r.mute && r.peer.acked.Load() < r.peer.seq && time.Now().Before(end); {
		if err := r.pause(ctx, step); err != nil {
			return err
		}
	}
	return nil
}

// answered waits until no question is open.
func (r *rehearsal) answered(ctx context.Context) error {
	for range window {
		if err := r.room(ctx); err != nil {
			return err
		}
	}
	return nil
}
