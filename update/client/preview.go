package client

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"bailey/update/release"
	"bailey/update/trust"
)

// Preview is what would come of a stream now, and what that waits for. Nothing is done for it, and nothing of it is a promise: a rehearsal says more.
type Preview struct {
	Version  string // of the release that is on its way, or would be; empty: none
	Why      string // there is none
	State    State  // where it is; empty: it has not begun
	Base     string // if a delta is fetched: the version that it begins at
	Bytes    int64  // what is fetched
	Fetched  int64  // of these
	Requires []string
	Waits    []Wait    // what it waits for, as far as that is known before it is there
	Ahead    []State   // the states before it is committed
	Others   []Another // releases that are offered and not taken, newest first
}

// Wait is what an update waits for in a state.
type Wait struct {
	State  State
	Reason string
}

// Another is a release that is not taken.
type Another struct{ Version, Reason string }

// onTheWay are the states of an update that all goes well with, in order.
var onTheWay = []State{Fetch, Stage, Approve, Rehearse, Shadow, Promote, Watch, Committed}

// Preview says what would come of a stream now; with force, if the operator applied it with force.
func (c *Client) Preview(id release.Stream, force bool) (Preview, error) {
	s, err := c.find(id)
	if err != nil {
		return Preview{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.record.Current
	var p Preview
	switch {
	case u != nil && !u.State.Ended():
		p.State = u.State
	default:
		offer, why := c.choose(s)
		u = nil
		if p.Why = why; offer != nil {
			u = &Update{Offer: *offer}
		}
	}
	p.Others = c.others(s, u)
	if u == nil {
		if s.problem != "" {
			p.Why = s.problem
		}
		return p, nil
	}
	p.Version = u.version()
	if p.State == "" || p.State == Fetch {
		var t trust.Target
		t, p.Base = c.way(s, u)
		p.Bytes, p.Fetched = t.Length, c.fetched(t)
	}
	for _, name := range slices.Sorted(maps.Keys(u.Offer.Release.Requires)) {
		p.Requires = append(p.Requires, fmt.Sprintf("%s %s", name, u.Offer.Release.Requires[name]))
	}
	asked := *u
	asked.Forced = asked.Forced || force
	asked.Approved = asked.Approved || force
	p.Ahead = c.ahead(s, &asked, p.State)
	p.Waits = c.waits(s, &asked, p.Ahead)
	return p, nil
}

// others says why the other offers are not taken. Caller holds s.mu.
func (c *Client) others(s *stream, u *Update) (out []Another) {
	leave := s.leaving()
	for i := range s.offers {
		o := &s.offers[i]
		v := o.Release.Version.String()
		reason := c.unfit(s, o, leave)
		switch {
		case u != nil && v == u.version(), v == s.record.Installed:
			continue
		case reason == older:
			return out
		case reason == "":
			reason = "another comes first"
		}
		out = append(out, Another{v, reason})
	}
	return out
}

// ahead are the states that an update goes through from where it is. Caller holds s.mu.
func (c *Client) ahead(s *stream, u *Update, at State) []State {
	i := slices.Index(onTheWay, at) + 1 // all, if it has not begun
	if at == RollBack {
		return []State{RolledBack}
	}
	return slices.DeleteFunc(slices.Clone(onTheWay[i:]), func(st State) bool {
		return st == Approve && (u.Approved || !s.settings.Manual && len(u.Asks) == 0)
	})
}

// waits is what stands in an update's way from where it is. Caller holds s.mu.
func (c *Client) waits(s *stream, u *Update, ahead []State) (out []Wait) {
	comes := func(st State) bool { return u.State == st || slices.Contains(ahead, st) }
	wait := func(st State, format string, args ...any) { out = append(out, Wait{st, fmt.Sprintf(format, args...)}) }
	if comes(Fetch) {
		t, _ := c.way(s, u)
		if err := c.fetchRoom(t); err != nil {
			wait(Fetch, "%v", err)
		}
	}
	if comes(Approve) {
		wait(Approve, "%s", c.wants(u.Asks))
	}
	if !comes(Promote) {
		return out
	}
	if s.record.Paused && !u.Forced {
		wait(Promote, "paused by the operator")
	}
	if until, closed := c.closed(s, u); closed {
		at := Promote
		if comes(Shadow) {
			at = Shadow
		}
		wait(at, "%s", notBefore(until))
	}
	if err := c.freshNow(s); err != nil {
		wait(Promote, "%v", err)
	}
	return out
}

// fetched is how much of a target is here.
func (c *Client) fetched(t trust.Target) int64 {
	path := filepath.Join(c.downloads(), t.SHA256)
	for _, p := range []string{path, filepath.Join(c.cfg.Partial, t.SHA256+trust.PartSuffix)} {
		if st, err := os.Lstat(p); err == nil {
			return min(st.Size(), t.Length)
		}
	}
	return 0
}
