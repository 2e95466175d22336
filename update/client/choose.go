package client

import (
	"fmt"
	"slices"
	"time"

	"bailey/update/release"
	"bailey/update/trust"
)

// choose returns the offer that is to be had now, or nil and why there is none. Caller holds s.mu.
func (c *Client) choose(s *stream) (*trust.Offer, string) {
	r := &s.record
	if r.Frozen != "" {
		return nil, "frozen: " + r.Frozen
	}
	leave := s.leaving()
	why := "nothing is offered"
	for i := range s.offers { // newest first
		o := &s.offers[i]
		v := o.Release.Version
		reason := c.unfit(s, o, leave)
		switch {
		case reason == "":
			return o, ""
		case reason == older:
			if i == 0 {
				return nil, "the newest is installed"
			}
			return nil, why
		case i == 0:
			why = fmt.Sprintf("%s: %s", v, reason)
		}
	}
	return nil, why
}

// older is why an offer is none.
const older = "not newer than what is installed"

// unfit says why an offer is not to be had; empty if it is. With leave set whatever is installed must go, for an older one if need be.
func (c *Client) unfit(s *stream, o *trust.Offer, leave bool) string {
	r, d := &s.record, &o.Release
	v := d.Version.String()
	pinned := r.Pinned != ""
	switch reason, bad := r.Bad[v]; {
	case pinned && v != r.Pinned:
		return "another version is pinned"
	case v == r.Installed:
		return older
	case !pinned && !leave && r.Installed != "" && !newer(d.Version, r.Installed):
		return older
	case bad:
		return reason
	case !slices.Contains(d.Platforms, c.cfg.OS):
		return "it is not for " + c.cfg.OS
	case c.cfg.Disk > 0 && o.Length > c.cfg.Disk:
		return fmt.Sprintf("it has %d bytes, and updates may use %d", o.Length, c.cfg.Disk)
	case d.Epoch < r.Epoch:
		return fmt.Sprintf("its epoch is %d, and %d was in force", d.Epoch, r.Epoch)
	}
	if s.id.Kind == release.Content {
		if in, err := c.installed(s.id.Product); err != nil || in.Name == "" {
			return "its product is not installed"
		}
	}
	if reason := c.unmet(s.id, d); reason != "" {
		return reason
	}
	if leave {
		return ""
	}
	if reason := c.lagging(s, o); reason != "" && !pinned {
		return reason
	}
	if until := r.Seen[v].Add(s.settings.Defer); d.Urgency != release.Urgent && c.time(s).Before(until) {
		return "it is deferred until " + until.UTC().Format(time.RFC3339)
	}
	return ""
}

func newer(v release.Version, installed string) bool {
	w, err := release.ParseVersion(installed)
	return err != nil || v.Compare(w) > 0
}

// unmet says which of a release's requirements does not hold; empty if all do.
func (c *Client) unmet(id release.Stream, d *release.Description) string {
	for name, need := range d.Requires {
		have, of := release.Version{}, ""
		switch name {
		case release.RequiresPlatform:
			have, of = c.cfg.Platform, "Bailey"
		case release.RequiresCode, release.RequiresContent:
			of = "the " + name + " of " + id.Product
			have = c.installedVersion(release.Stream{Vendor: id.Vendor, Product: id.Product, Kind: release.Kind(name)})
		}
		if have.IsZero() {
			return fmt.Sprintf("it needs %s %s, whose version is not known", of, need)
		}
		if !need.Holds(have) {
			return fmt.Sprintf("it needs %s %s, and that is %s", of, need, have)
		}
	}
	return ""
}

// installedVersion is what is installed of a stream, zero if that is not known. It takes no lock: what another stream has is read from the disk's
// truth by its own record's owner, and a moment's difference is found by the rehearsal.
func (c *Client) installedVersion(id release.Stream) release.Version {
	r, err := c.read(id)
	text := r.Installed
	if err != nil || text == "" {
		text = c.found(id)
	}
	v, err := release.ParseVersion(text)
	if err != nil {
		return release.Version{}
	}
	return v
}
