package client

import (
	"context"
	"errors"
	"path/filepath"
	"time"
)

// installed is the host's Installed, where a product that is not is no error.
func (c *Client) installed(product string) (Installed, error) {
	in, err := c.cfg.Host.Installed(product)
	if errors.Is(err, ErrNotInstalled) {
		err = nil
	}
	return in, err
}

// promote puts the release in force, if it is still offered, and was a moment ago.
func (c *Client) promote(ctx context.Context, j *job) (outcome, error) {
	id, u, now := j.stream.id, &j.update, c.cfg.Now()
	if j.paused && !u.Forced {
		return stay(now.Add(time.Minute), "paused by the operator"), nil
	}
	if moved, err := c.changed(j); moved != "" || err != nil {
		return move(Stage, "%s", moved), err
	}
	if err := c.fresh(); err != nil {
		c.Check()
		return stay(now.Add(firstRetry), "%v", err), nil
	}
	j.stream.mu.Lock()
	offered := j.stream.offered(u)
	j.stream.mu.Unlock()
	if !offered {
		return move(Superseded, "it is not offered any more"), nil
	}
	if err := c.cfg.Host.Install(ctx, id.Product, filepath.Join(c.staged(id), folderDir), u.Release); err != nil {
		return outcome{}, err
	}
	window := c.cfg.Watch
	if h := u.Offer.Release.Health; h != nil && h.WindowS > 0 {
		window = time.Duration(h.WindowS) * time.Second
	}
	return move(Watch, "it is in force").with(func(u *Update) { u.Until = c.cfg.Now().Add(window) }), nil
}
