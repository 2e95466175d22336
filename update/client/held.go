package client

import (
	"fmt"
	"slices"
	"time"

	"bailey/update/release"
	"bailey/update/trust"
)

// lagging says why an offer is held back so that the machine stays behind the newest; empty if it is not. Caller holds s.mu.
func (c *Client) lagging(s *stream, o *trust.Offer) string {
	lag := s.settings.Lag
	if lag == 0 || o.Release.Urgency == release.Urgent || c.raises(s, o) {
		return ""
	}
	newer := map[string]bool{}
	for i := range s.offers {
		if v := s.offers[i].Release.Version; v.Compare(o.Release.Version) > 0 && c.counts(s, &s.offers[i]) {
			newer[v.String()] = true
		}
	}
	if len(newer) >= lag {
		return ""
	}
	return fmt.Sprintf("it is held back until it is %d behind the newest, and it is %d", lag, len(newer))
}

// counts reports whether an offer is one of those that others are behind. Caller holds s.mu.
func (c *Client) counts(s *stream, o *trust.Offer) bool {
	_, bad := s.record.Bad[o.Release.Version.String()]
	return !bad && slices.Contains(o.Release.Platforms, c.cfg.OS)
}

// raises reports whether an offer is the oldest that is of a higher epoch than what is installed. Caller holds s.mu.
func (c *Client) raises(s *stream, o *trust.Offer) bool {
	r, epoch := &s.record, o.Release.Epoch
	if r.Installed == "" || epoch <= r.Epoch {
		return false
	}
	return !slices.ContainsFunc(s.offers, func(other trust.Offer) bool {
		d := &other.Release
		same := d.Version.String() == r.Installed || c.counts(s, &other)
		return same && d.Epoch >= epoch && d.Version.Compare(o.Release.Version) < 0
	})
}

// leaving reports whether the recovery policy wants what is installed gone. Caller holds s.mu.
func (s *stream) leaving() bool {
	v, err := release.ParseVersion(s.record.Installed)
	if err != nil {
		return false
	}
	_, disabled := s.policy.Disables(s.id, v)
	return disabled
}

// outside is the outcome of a step that waits for one of its stream's windows, if it is to.
func (c *Client) outside(s *stream, u *Update) (out outcome, waits bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, closed := c.closed(s, u)
	return stay(earlier(until, c.cfg.Now().Add(time.Minute)), "%s", notBefore(until)), closed
}

// closed says until when a release waits for one of its stream's windows. Caller holds s.mu.
func (c *Client) closed(s *stream, u *Update) (until time.Time, closed bool) {
	now, w := c.cfg.Now(), s.settings.Windows
	if u.Forced || w.Open(now) || s.settings.Urgent && s.urgent(u) {
		return time.Time{}, false
	}
	return w.Next(now), true
}

func notBefore(until time.Time) string {
	return "outside of its windows until " + until.Format("Mon 15:04")
}

// urgent reports whether an update is, by its vendor's word or because of what it replaces. Caller holds s.mu.
func (s *stream) urgent(u *Update) bool {
	return u.Offer.Release.Urgency == release.Urgent || s.leaving()
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
