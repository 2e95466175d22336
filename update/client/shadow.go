package client

import (
	"context"
	"errors"
	"path/filepath"
	"time"
)

// How often a release that runs beside the one in force is looked at, and how long it may take to say what it wants.
const (
	shadowPoll  = 100 * time.Millisecond
	shadowStart = 30 * time.Second
)

// shadow has the host run the release beside the one in force, and compare them.
func (c *Client) shadow(ctx context.Context, j *job) (outcome, error) {
	if moved, err := c.changed(j); moved != "" || err != nil {
		return move(Stage, "%s", moved), err
	}
	s, u, now := j.stream, &j.update, c.cfg.Now()
	s.mu.Lock()
	look := s.beside
	s.mu.Unlock()
	if look == nil {
		if out, waits := c.outside(s, u); waits { // two of them, for hours, would be too much
			return out, nil
		}
		look, err := c.cfg.Host.Shadow(ctx, s.id.Product, filepath.Join(c.staged(s.id), folderDir), u.Release)
		if errors.Is(err, ErrAlone) {
			return move(Promote, "%v", err), nil
		}
		if err != nil {
			return outcome{}, err
		}
		s.mu.Lock()
		s.beside = look
		s.mu.Unlock()
		until := now.Add(s.settings.Shadow)
		return stay(now, "it is started beside %s", u.Previous).with(func(u *Update) { u.Until, u.Shadow = until, nil }), nil
	}
	b := look()
	if b.Gone {
		s.mu.Lock()
		s.beside = nil
		s.mu.Unlock()
		return stay(now.Add(shadowPoll), "it is started again beside %s", u.Previous), nil
	}
	harm := b.Harm
	if harm == "" && !b.Ready && now.Sub(u.Until.Add(-s.settings.Shadow)) > shadowStart {
		harm = "it did not say what it wants within " + shadowStart.String()
	}
	edit := func(u *Update) { u.Shadow = b.Report() }
	switch {
	case harm != "" && u.Forced:
		return move(Promote, "the operator wants it, although %s", harm).with(edit), nil
	case harm != "":
		return move(Refused, "shadow: %s", harm).with(edit), nil
	case b.Ready && !now.Before(u.Until):
		return move(Promote, "it ran beside %s, and nothing spoke against it", u.Previous).with(edit), nil
	}
	return stay(now.Add(shadowPoll), "it runs beside %s until %s, and is compared with it", u.Previous, u.Until.UTC().Format("15:04:05Z")), nil
}

// settle ends what a stream's update had running beside the release in force, once the update needs it no more. It reports whether all is settled.
func (c *Client) settle(ctx context.Context, s *stream) bool {
	s.mu.Lock()
	u := s.record.Current
	if !s.around || u != nil && u.State.around() {
		s.mu.Unlock()
		return true
	}
	s.beside = nil
	s.mu.Unlock()
	if u != nil && u.Release != "" && c.cfg.Host.Settle(ctx, s.id.Product, u.Release) != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.around = s.record.Current != u && s.around
	return true
}
