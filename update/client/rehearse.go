package client

import (
	"context"
	"path/filepath"
	"strings"
)

// rehearse has the host try the release against this machine's past.
func (c *Client) rehearse(ctx context.Context, j *job) (outcome, error) {
	if moved, err := c.changed(j); moved != "" || err != nil {
		return move(Stage, "%s", moved), err
	}
	r, err := c.cfg.Host.Rehearse(ctx, j.stream.id.Product, filepath.Join(c.staged(j.stream.id), folderDir), j.update.Release)
	if err != nil {
		return outcome{}, err
	}
	edit := func(u *Update) { u.Rehearsal = r.Report }
	reasons := strings.Join(r.Reasons, "; ")
	switch {
	case r.Passed:
		return move(Shadow, "it passed its rehearsal").with(edit), nil
	case j.update.Forced:
		return move(Shadow, "the operator wants it, although %s", reasons).with(edit), nil
	}
	return move(Refused, "rehearsal: %s", reasons).with(edit), nil
}

// changed says whether the product is another one than when the update was staged.
func (c *Client) changed(j *job) (string, error) {
	in, err := c.installed(j.stream.id.Product)
	if err != nil || in.Name == j.update.Previous || in.Name == j.update.Release {
		return "", err
	}
	return "the product was changed meanwhile, to " + in.Name, nil
}
