package client

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"bailey/update/release"
	"bailey/update/trust"
)

// Refresh looks at the repository once: what is offered that is to be had becomes an update, and what is to be fetched is. It reports whether
// the repository could be looked at.
func (c *Client) Refresh(ctx context.Context) bool {
	err := c.lookOnce(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looked.Tried, c.looked.Problem = c.cfg.Now(), ""
	if err != nil && ctx.Err() == nil {
		c.looked.Problem = err.Error()
	}
	return err == nil
}

func (c *Client) lookOnce(ctx context.Context) error {
	v, err := c.cfg.Repository.Look(ctx)
	if err != nil {
		return err
	}
	defer v.Close()
	plan, err := v.Plan(ctx, c.cfg.Streams...)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.looked.At, c.looked.Expires = c.cfg.Now(), plan.Expires
	c.mu.Unlock()
	for i, sp := range plan.Streams {
		s := c.streams[i]
		s.mu.Lock()
		c.consider(s, &sp, &plan.Policy)
		s.mu.Unlock()
	}
	for _, s := range c.streams {
		if err := c.fetch(ctx, v, s); err != nil {
			return err
		}
	}
	return nil
}

// Looked returns what came of the newest look.
func (c *Client) Looked() Look {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.looked
}

// consider takes in what a stream offers now. Caller holds s.mu.
func (c *Client) consider(s *stream, sp *trust.StreamPlan, policy *release.Policy) {
	s.why = sp.Problem
	if sp.Problem != "" {
		return
	}
	s.offers = sp.Offers // none of them disabled
	s.policy = *policy
	now := c.cfg.Now()
	seen := map[string]time.Time{}
	for _, o := range sp.Offers {
		v := o.Release.Version.String()
		seen[v] = now
		if at, ok := s.record.Seen[v]; ok {
			seen[v] = at
		}
	}
	s.record.Seen = seen
	if s.record.Installed == "" {
		s.record.Installed = c.found(s.id)
	}
	offer, why := c.choose(s)
	s.why = why
	u := s.record.Current
	switch {
	case offer == nil:
		if u != nil && u.State.before() && !s.offered(u) {
			c.enter(s, Superseded, "it is not offered any more")
		}
		return
	case u != nil && !u.State.Ended() && !u.State.before():
		s.why = "another is being watched"
		return
	case u != nil && u.State.before() && u.Offer.SHA256 == offer.SHA256:
		return
	case u != nil && u.State.before():
		c.enter(s, Superseded, "by "+offer.Release.Version.String())
	}
	c.begin(s, offer, "it is offered")
}

// offered reports whether an update is of a release that is offered. Caller holds s.mu.
func (s *stream) offered(u *Update) bool {
	return slices.ContainsFunc(s.offers, func(o trust.Offer) bool { return o.SHA256 == u.Offer.SHA256 })
}

// found is the version of what is installed already, as far as it says so.
func (c *Client) found(id release.Stream) string {
	if id.Kind != release.Code {
		return ""
	}
	in, err := c.cfg.Host.Installed(id.Product)
	if err != nil {
		return ""
	}
	if _, err := release.ParseVersion(in.Version); err != nil {
		return ""
	}
	return in.Version
}

// fetch downloads what a stream waits for. The error is of ctx: what is wrong with one stream does not end the look.
func (c *Client) fetch(ctx context.Context, v View, s *stream) error {
	s.mu.Lock()
	u := s.record.Current
	if u == nil || u.State != Fetch || u.Next.After(c.cfg.Now()) {
		s.mu.Unlock()
		return nil
	}
	was := *u
	target, base := c.way(s)
	s.mu.Unlock()
	path, err := v.Download(ctx, target, filepath.Join(c.cfg.Dir, downloadsDir))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.apply(s, &was, move(Stage, "%d bytes were fetched", target.Length).with(func(u *Update) { u.Bundle, u.Base = path, base }), err)
	return nil
}

// way returns what to download: a delta where one begins at what is here, else the bundle. Caller holds s.mu.
func (c *Client) way(s *stream) (t trust.Target, base string) {
	u := s.record.Current
	i := slices.IndexFunc(u.Offer.Deltas, func(d trust.Delta) bool { return d.Base.String() == s.record.Installed })
	if i < 0 || u.NoDelta {
		return u.Offer.Target, ""
	}
	if m, err := c.baseManifest(s.id); err != nil || m.Release.Version.String() != s.record.Installed {
		return u.Offer.Target, ""
	}
	return u.Offer.Deltas[i].Target, s.record.Installed
}

// fresh is nil when the newest look is young enough for a release to get its say on.
func (c *Client) fresh() error {
	l := c.Looked()
	age := c.cfg.Now().Sub(l.At)
	var err error
	switch {
	case l.At.IsZero():
		err = errors.New("the repository was not seen since the start")
	case age > c.cfg.Lease:
		err = fmt.Errorf("the repository was not seen for %v, and what it said then may be taken back by now", age.Round(time.Second))
	}
	if err != nil && l.Problem != "" {
		err = fmt.Errorf("%w: %s", err, l.Problem)
	}
	return err
}
