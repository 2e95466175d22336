package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"bailey/update/release"
	"bailey/update/trust"
)

// Refresh looks at the repository once: what is offered that is to be had becomes an update, and what is to be fetched is. It reports whether
// the repository could be looked at.
func (c *Client) Refresh(ctx context.Context) bool {
	err := c.lookOnce(ctx)
	l := c.took(err, ctx.Err() != nil)
	if c.cfg.OnLook != nil && ctx.Err() == nil {
		c.cfg.OnLook(l)
	}
	return err == nil
}

// took takes note of what came of a look; one that was called off says nothing.
func (c *Client) took(err error, off bool) Look {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &c.looked
	l.Tried, l.Problem, l.Failed = c.cfg.Now(), "", l.Failed+1
	switch {
	case err == nil:
		l.Failed = 0
	case !off:
		l.Problem = err.Error()
	}
	return *l
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
		c.consider(s, &sp, &plan)
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
func (c *Client) consider(s *stream, sp *trust.StreamPlan, plan *trust.Plan) {
	s.why, s.problem = sp.Problem, sp.Problem
	if sp.Problem != "" {
		return
	}
	s.offers = sp.Offers // none of them disabled
	s.policy, s.judged, s.looked = plan.Policy, plan.At, c.cfg.Now()
	seen := map[string]time.Time{}
	for _, o := range sp.Offers {
		v := o.Release.Version.String()
		seen[v] = c.time(s)
		if at, ok := s.record.Seen[v]; ok && at.Before(seen[v]) { // a later one is of a clock that was ahead
			seen[v] = at
		}
	}
	if !maps.EqualFunc(seen, s.record.Seen, time.Time.Equal) {
		s.record.Seen = seen
		c.save(s)
	}
	c.wentBack(s)
	c.notice(s)
	offer, why := c.choose(s)
	s.why = why
	if c.recall(s, offer != nil) {
		s.why = "the one that was installed goes back"
		return
	}
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

// notice takes in what is installed and did not come through here: what was there before, or what somebody brought that is newer. Caller holds s.mu.
func (c *Client) notice(s *stream) {
	r, u := &s.record, s.record.Current
	if r.Installed != "" && u != nil && !u.State.Ended() {
		return
	}
	found := c.found(s.id)
	if v, err := release.ParseVersion(found); err == nil && (r.Installed == "" || newer(v, r.Installed)) {
		r.Installed = found
	}
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
	target, base := c.way(s, u)
	s.mu.Unlock()
	path, err := "", c.fetchRoom(target)
	if err == nil {
		path, err = v.Download(ctx, target, c.downloads())
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.apply(s, &was, move(Stage, "%d bytes were fetched", target.Length).with(func(u *Update) { u.Bundle, u.Base = path, base }), err)
	return nil
}

// way returns what to download: a delta where one begins at what is here, else the bundle. Caller holds s.mu.
func (c *Client) way(s *stream, u *Update) (t trust.Target, base string) {
	i := slices.IndexFunc(u.Offer.Deltas, func(d trust.Delta) bool { return d.Base.String() == s.record.Installed })
	if i < 0 || u.NoDelta {
		return u.Offer.Target, ""
	}
	if m, err := c.baseManifest(s.id); err != nil || m.Release.Version.String() != s.record.Installed {
		return u.Offer.Target, ""
	}
	return u.Offer.Deltas[i].Target, s.record.Installed
}

// time is the time by which the offers of a stream are judged: a clock that is behind what was signed is not believed. Caller holds s.mu.
func (c *Client) time(s *stream) time.Time {
	if now := c.cfg.Now(); now.After(s.judged) {
		return now
	}
	return s.judged
}

// fresh is nil when what a stream offers was heard a short enough while ago for a release to get its say on.
func (c *Client) fresh(s *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.freshNow(s)
}

// freshNow is fresh for who holds s.mu.
func (c *Client) freshNow(s *stream) error {
	at, problem := s.looked, cmp.Or(c.Looked().Problem, s.problem)
	age := since(c.cfg.Now(), at)
	var err error
	switch {
	case at.IsZero():
		err = errors.New("the repository was not seen since the start")
	case age > c.cfg.Lease:
		err = fmt.Errorf("the repository was not seen for %v, and what it said then may be taken back by now", age.Round(time.Second))
	}
	if err != nil && problem != "" {
		err = fmt.Errorf("%w: %s", err, problem)
	}
	return err
}

// since is how long ago a moment was, by the clock that says longer: the steady one stands still while the machine sleeps, and the other can be set
// back.
func since(now, then time.Time) time.Duration {
	return max(now.Sub(then), now.Round(0).Sub(then.Round(0)))
}
