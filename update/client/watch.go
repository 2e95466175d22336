package client

import (
	"cmp"
	"context"
	"errors"
)

// watch looks whether the release does harm.
func (c *Client) watch(_ context.Context, j *job) (outcome, error) {
	s, u, now := j.stream, &j.update, c.cfg.Now()
	in, err := c.installed(s.id.Product)
	if err != nil {
		return outcome{}, err
	}
	if in.Name != u.Release {
		return move(RollBack, "the machine went back to %s by itself: %s", in.Name, cmp.Or(in.Why, "it says nothing of why")), nil
	}
	s.mu.Lock()
	harm := s.harm
	s.mu.Unlock()
	if harm == nil {
		harm, err = c.cfg.Host.Watch(s.id.Product, u.Release)
		if errors.Is(err, ErrOff) { // it is watched once it runs
			later := now.Add(firstRetry)
			return stay(later, "%v", err).with(func(u *Update) { u.Until = later.Add(c.cfg.Watch) }), nil
		}
		if err != nil {
			return outcome{}, err
		}
		s.mu.Lock()
		s.harm = harm
		s.mu.Unlock()
	}
	if reason := harm(); reason != "" {
		return move(RollBack, "%s", reason), nil
	}
	if now.After(u.Until) {
		return move(Committed, "it did no harm"), nil
	}
	return stay(now.Add(watchPoll), "it is in force, and watched until %s", u.Until.UTC().Format("15:04:05Z")), nil
}
