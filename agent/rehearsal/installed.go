package rehearsal

import (
	"context"
	"errors"
	"time"

	"bailey/agent/product"
)

// askInstalled asks the installed release what the new one denies of the corpus, which nobody has asked it: what both deny is nothing new. Where it
// cannot be asked the report says so.
func (r *rehearsal) askInstalled(ctx context.Context) error {
	if r.cfg.Installed == "" || r.cfg.TryInstalled == nil {
		return nil
	}
	var denied []*question
	for _, a := range r.peer.answers() {
		if a.deny && a.q.from.common() {
			denied = append(denied, a.q)
		}
	}
	if len(denied) > 0 {
		if err := r.compareWith(ctx, denied); err != nil {
			if ctx.Err() != nil || errors.Is(err, product.ErrBusy) {
				return err
			}
			r.report.Notes = append(r.report.Notes, "the installed release could not be asked about the corpus: "+err.Error())
			return nil
		}
	}
	r.compared = true
	return nil
}

// compareWith notes in each question what the installed release answers.
func (r *rehearsal) compareWith(ctx context.Context, list []*question) (err error) {
	i := &rehearsal{cfg: r.cfg, peer: newPeer(r.cfg.Welcome)}
	if i.trial, err = r.cfg.TryInstalled(i.peer); err != nil {
		return err
	}
	defer func() {
		i.trial.Stop()
		err = errors.Join(err, i.trial.Close())
	}()
	if err := i.begins(ctx); err != nil {
		return err
	}
	i.until = time.Now().Add(i.cfg.Limits.Total)
	r.progress("comparing", 0, len(list))
	for _, q := range list {
		if err := i.ask(ctx, q); err != nil {
			return err
		}
	}
	if err := i.answered(ctx); err != nil {
		return err
	}
	for _, a := range i.peer.answers() {
		a.q.before = allow
		if a.deny {
			a.q.before = deny
		}
	}
	return nil
}
