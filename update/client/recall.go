package client

import (
	"fmt"

	"bailey/update/release"
	"bailey/update/trust"
)

// recall puts back what is in force and must not be: what the recovery policy disables, unless a release that is offered takes its place. It goes back to
// what is on this machine, which needs no download; with nothing to go back to it is stopped. It reports whether it did. Caller holds s.mu.
func (c *Client) recall(s *stream, replaceable bool) bool {
	r, u := &s.record, s.record.Current
	switch {
	case u != nil && u.State == Watch:
		reason, yes := s.policy.Disables(s.id, u.Offer.Release.Version)
		if yes {
			c.enter(s, RollBack, disabledBy(reason))
		}
		return yes
	case u != nil && !u.State.Ended():
		return false // it takes the place, or is about to go itself
	}
	v, err := release.ParseVersion(r.Installed)
	if err != nil {
		return false
	}
	reason, yes := s.policy.Disables(s.id, v)
	if _, done := r.Bad[r.Installed]; !yes || done || replaceable {
		return false
	}
	in, err := c.installed(s.id.Product)
	switch {
	case err != nil || in.Name == "":
		return false
	case r.goesBack() && in.Name == r.Last.Release:
		c.undo(s)
	default: // it came another way, or what was before it is not known here: the host may know
		r.Current = &Update{
			Offer: trust.Offer{Release: release.Description{Vendor: s.id.Vendor, Product: s.id.Product, Kind: s.id.Kind, Version: v}},
			State: Watch, Began: c.cfg.Now(), Release: in.Name,
		}
		r.Installed, r.Last = "", nil
	}
	c.enter(s, RollBack, disabledBy(reason))
	return true
}

func disabledBy(reason string) string { return "the recovery policy disables it: " + reason }

// wentBack finds out whether the machine took back, by itself, what was committed here: after a boot that did not end well, or because it crashed again
// and again. Then it ends as it would have while it was watched. Caller holds s.mu.
func (c *Client) wentBack(s *stream) {
	r, u := &s.record, s.record.Current
	on := u != nil && !u.State.Ended()
	if !r.goesBack() || on && !u.State.before() {
		return
	}
	in, err := c.installed(s.id.Product)
	if err != nil || in.Name != r.Last.Previous || in.Name == r.Last.Release {
		return
	}
	if on { // it was made for what is not in force any more
		c.enter(s, Superseded, "what it was to follow went back")
	}
	c.undo(s)
	c.enter(s, RollBack, fmt.Sprintf("the machine went back to %s by itself", in.Name))
}

// goesBack reports whether what is installed came through here, in the place of something that is known.
func (r *Record) goesBack() bool {
	return r.Last != nil && r.Last.Previous != "" && r.Last.version() == r.Installed
}

// undo makes what was committed last the present update again, which is to enter RollBack. Caller holds s.mu.
func (c *Client) undo(s *stream) {
	last := *s.record.Last
	last.State, last.Began = Watch, c.cfg.Now()
	s.record.Current, s.record.Last, s.record.Installed = &last, nil, last.Replaces
}
