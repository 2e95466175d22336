package client

import (
	"context"
	"errors"
	"io/fs"
	"os"
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

// changed says why the update is to be staged anew: the product is another one than when it was, or what was staged is not there.
func (c *Client) changed(j *job) (string, error) {
	if _, err := os.Stat(filepath.Join(c.staged(j.stream.id), folderDir)); errors.Is(err, fs.ErrNotExist) {
		return "what was staged is gone", nil
	}
	in, err := c.installed(j.stream.id.Product)
	if err != nil || in.Name == j.update.Previous || in.Name == j.update.Release {
		return "", err
	}
	return "the product was changed meanwhile, to " + in.Name, nil
}
