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

// promote puts the release in force, if it is still offered, and was a moment ago. One that is in force already, because whoever put it there did not
// come to write that down, is watched at once, whatever is said of it now.
func (c *Client) promote(ctx context.Context, j *job) (outcome, error) {
	id, u, now := j.stream.id, &j.update, c.cfg.Now()
	in, err := c.installed(id.Product)
	if err != nil {
		return outcome{}, err
	}
	if in.Name != "" && in.Name == u.Release {
		return c.install(ctx, j)
	}
	if j.paused && !u.Forced {
		return stay(now.Add(time.Minute), "paused by the operator"), nil
	}
	if out, waits := c.outside(j.stream, u); waits {
		return out, nil
	}
	if moved, err := c.changed(j); moved != "" || err != nil {
		return move(Stage, "%s", moved), err
	}
	if err := c.fresh(j.stream); err != nil {
		c.lookSoon()
		return stay(now.Add(firstRetry), "%v", err), nil
	}
	j.stream.mu.Lock()
	offered := j.stream.offered(u)
	j.stream.mu.Unlock()
	if !offered {
		return move(Superseded, "it is not offered any more"), nil
	}
	return c.install(ctx, j)
}

// install has the host put the release in force, and begins to watch it.
func (c *Client) install(ctx context.Context, j *job) (outcome, error) {
	id, u := j.stream.id, &j.update
	if err := c.cfg.Host.Install(ctx, id.Product, filepath.Join(c.staged(id), folderDir), u.Release); err != nil {
		return outcome{}, err
	}
	window := j.stream.settings.Watch
	if h := u.Offer.Release.Health; h != nil && h.WindowS > 0 {
		window = time.Duration(h.WindowS) * time.Second
	}
	return move(Watch, "it is in force").with(func(u *Update) { u.Until = c.cfg.Now().Add(window) }), nil
}
