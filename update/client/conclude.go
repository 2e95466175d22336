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

// conclude takes note of how the present update ended.
func (r *Record) conclude(now time.Time) {
	u := r.Current
	switch u.State {
	case Committed:
		r.Installed, r.Epoch = u.version(), max(r.Epoch, u.Offer.Release.Epoch)
		last := *u
		last.Rehearsal, last.Shadow = nil, nil
		r.Last = &last
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
}

// tidy clears away what the present update, which has ended, has on the disk. It comes after save: at a power cut between them the files are there,
// and go at the next start; the other way round an update that the disk knows to be on its way would lack them. What cannot be cleared away is a Problem,
// and the update has ended all the same. Caller holds s.mu.
func (c *Client) tidy(s *stream) {
	u, unsaved := s.record.Current, s.record.Problem != ""
	var err error
	if u.State == Committed {
		err = c.keepBase(s.id) // without, deltas do not fit, and whole bundles do
	}
	err = errors.Join(err, c.clear(s.id, u))
	if unsaved { // there may be room now
		c.save(s)
	}
	if err != nil {
		s.record.Problem = err.Error()
	}
}

// keepBase keeps the files of what was just committed. Their manifest goes last: as long as it is not there, there is no base.
func (c *Client) keepBase(id release.Stream) error {
	base, staged := c.base(id), c.staged(id)
	files, manifest := filepath.Join(staged, filesDir), filepath.Join(staged, manifestFile)
	if _, err := os.Stat(manifest); err != nil {
		return nil // it was kept before a power cut
	}
	if _, err := os.Stat(files); err == nil { // else they were moved before a power cut
		if err := errors.Join(os.RemoveAll(base), os.MkdirAll(base, 0o700), os.Rename(files, filepath.Join(base, filesDir))); err != nil {
			return err
		}
	}
	return errors.Join(os.Rename(manifest, filepath.Join(base, manifestFile)), durable.SyncDir(base))
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
