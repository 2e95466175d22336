package client

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"bailey/update/release"
	"bailey/update/trust"
)

// ErrNothing is the class of an operator's wish that does not fit the stream's present state.
var ErrNothing = errors.New("nothing to do")

// skipped is why a version is not tried that the operator does not want.
const skipped = "the operator skips it"

// Status is a stream as an operator sees it.
type Status struct {
	Stream  release.Stream
	Record  Record
	Offers  []trust.Offer // newest first
	Waiting string        // why none of them is on its way
	// While something is fetched: how much there is of how much.
	Fetched, Bytes int64
	Settings       Settings
}

// Overrides are what the operator wants of this machine otherwise than its configuration says, in words.
func (r *Record) Overrides() (out []string) {
	if r.Paused {
		out = append(out, "paused")
	}
	if r.Pinned != "" {
		out = append(out, "pinned to "+r.Pinned)
	}
	for _, v := range slices.Sorted(maps.Keys(r.Bad)) {
		if r.Bad[v] == skipped {
			out = append(out, "skips "+v)
		}
	}
	if u := r.Current; u != nil && u.Forced && (!u.State.Ended() || u.State == Committed) {
		out = append(out, "forces "+u.version())
	}
	return out
}

// Status returns all streams, in the order of the configuration.
func (c *Client) Status() []Status {
	var out []Status
	for _, s := range c.streams {
		s.mu.Lock()
		st := Status{Stream: s.id, Record: s.record.clone(), Offers: s.offers, Waiting: s.why, Settings: s.settings}
		if s.beside != nil {
			st.Record.Current.Shadow = s.beside().Report()
		}
		if u := s.record.Current; u != nil && u.State == Fetch {
			t, _ := c.way(s, u)
			st.Fetched, st.Bytes = c.fetched(t), t.Length
		}
		out = append(out, st)
		s.mu.Unlock()
	}
	return out
}

func (r Record) clone() Record {
	for _, u := range []**Update{&r.Current, &r.Last} {
		if *u != nil {
			v := **u
			*u = &v
		}
	}
	r.Bad, r.Seen = maps.Clone(r.Bad), nil
	return r
}

// change edits a stream's record for the operator, writes it down, and has it looked at.
func (c *Client) change(id release.Stream, edit func(*stream) error) error {
	s, err := c.find(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	err = edit(s)
	if err == nil {
		c.save(s)
	}
	problem := s.record.Problem
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	poke(s.wake)
	c.Check()
	if problem != "" {
		return errors.New(problem)
	}
	return nil
}

// Pause keeps new releases of a stream from getting a say; what is fetched and rehearsed waits.
func (c *Client) Pause(id release.Stream) error {
	return c.change(id, func(s *stream) error { s.record.Paused = true; return nil })
}

// Resume ends Pause, and a freeze: what went wrong is tried again.
func (c *Client) Resume(id release.Stream) error {
	return c.change(id, func(s *stream) error {
		s.record.Paused = false
		s.record.forget()
		if u := s.record.Current; u != nil && u.State == Promote {
			u.Next = c.cfg.Now()
		}
		return nil
	})
}

// Pin makes one version the only one that is wanted, older or newer; a zero version ends that.
func (c *Client) Pin(id release.Stream, v release.Version) error {
	return c.change(id, func(s *stream) error {
		s.record.Pinned = ""
		if !v.IsZero() {
			s.record.Pinned = v.String()
			delete(s.record.Bad, v.String())
		}
		if u := s.record.Current; u != nil && u.State.before() && !v.IsZero() && u.version() != v.String() {
			c.enter(s, Superseded, "the operator pinned "+v.String())
		}
		return nil
	})
}

// Skip makes a version one that is not wanted.
func (c *Client) Skip(id release.Stream, v release.Version) error {
	return c.change(id, func(s *stream) error {
		s.record.Bad[v.String()] = skipped
		if u := s.record.Current; u != nil && u.State.before() && u.version() == v.String() {
			c.enter(s, Superseded, skipped)
		}
		return nil
	})
}

// Approve says yes to the release that waits for it; with force, whatever its rehearsal says.
func (c *Client) Approve(id release.Stream, force bool) error {
	return c.change(id, func(s *stream) error {
		u := s.record.Current
		switch {
		case u == nil || !u.State.before() && !(force && u.State == Refused):
			return fmt.Errorf("%w: no release waits", ErrNothing)
		case u.State == Refused: // once more, from the beginning
			delete(s.record.Bad, u.version())
			c.begin(s, &u.Offer, "the operator wants it")
			u = s.record.Current
		}
		u.Approved, u.Forced, u.Next = true, u.Forced || force, c.cfg.Now()
		return nil
	})
}

// Back puts the release before the one that is in force back, and does not try that one again.
func (c *Client) Back(id release.Stream) error {
	return c.change(id, func(s *stream) error {
		u := s.record.Current
		switch {
		case u != nil && u.State == Watch:
		case (u == nil || u.State.Ended()) && s.record.goesBack():
			if in, err := c.installed(id.Product); err != nil || in.Name != s.record.Last.Release {
				return errors.Join(err, fmt.Errorf("%w: the product was changed since, to %s", ErrNothing, in.Name))
			}
			c.undo(s)
		default:
			return fmt.Errorf("%w: there is no release to go back to", ErrNothing)
		}
		c.enter(s, RollBack, "the operator wants it")
		return nil
	})
}
