package client

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"bailey/internal/durable"
	"bailey/update/release"
	"bailey/update/trust"
)

// conclude takes note of how an update ended, and clears away what it had on the disk. The error is of that alone: the update has ended. Caller
// holds s.mu and saves the record.
func (c *Client) conclude(s *stream) (err error) {
	r, u, now := &s.record, s.record.Current, c.cfg.Now()
	switch u.State {
	case Committed:
		r.Installed, r.Epoch = u.version(), max(r.Epoch, u.Offer.Release.Epoch)
		last := *u
		last.Rehearsal, last.Shadow = nil, nil
		r.Last = &last
		err = c.keepBase(s.id) // without, deltas do not fit, and whole bundles do
	case Refused, RolledBack:
		r.Bad[u.version()] = fmt.Sprintf("%s: %s", u.State, u.Reason)
		r.Failures = append(r.Failures, now)
		for len(r.Failures) > 0 && now.Sub(r.Failures[0]) > failuresFor {
			r.Failures = r.Failures[1:]
		}
		if len(r.Failures) >= maxFailures && r.Frozen == "" {
			r.Frozen = fmt.Sprintf("%d releases went wrong within a day, the last: %s", len(r.Failures), u.Reason)
		}
	}
	return errors.Join(err, c.clear(s.id, u))
}

// keepBase keeps the files of what was just committed.
func (c *Client) keepBase(id release.Stream) error {
	base, staged := c.base(id), c.staged(id)
	if _, err := os.Stat(filepath.Join(staged, manifestFile)); err != nil {
		return nil // it was kept before a power cut
	}
	return errors.Join(
		os.RemoveAll(base), os.MkdirAll(base, 0o700),
		os.Rename(filepath.Join(staged, filesDir), filepath.Join(base, filesDir)),
		os.Rename(filepath.Join(staged, manifestFile), filepath.Join(base, manifestFile)),
		durable.SyncDir(base),
	)
}

// clear removes what an update that ended has on the disk.
func (c *Client) clear(id release.Stream, u *Update) error {
	err := os.RemoveAll(c.staged(id))
	begun := []trust.Target{u.Offer.Target}
	for _, d := range u.Offer.Deltas {
		begun = append(begun, d.Target)
	}
	left := []string{u.Bundle}
	for _, t := range begun {
		left = append(left, filepath.Join(c.cfg.Dir, downloadsDir, t.SHA256+trust.PartSuffix))
	}
	for _, path := range left {
		if rerr := os.Remove(path); path != "" && rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// forget drops failures and bad versions, so that everything is tried anew. Caller holds s.mu.
func (r *Record) forget() {
	r.Frozen, r.Failures, r.Bad = "", []time.Time{}, map[string]string{}
}
