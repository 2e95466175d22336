package main

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"time"
)

// ended are the states in which nothing more happens to an update.
var ended = []string{"committed", "refused", "rolled_back", "superseded"}

// drive offers one release after the other, each when the one before has ended, until there is none left or the power goes.
func (m *machine) drive() error {
	said, since := "", time.Now()
	for {
		var s updateStream
		if err := ask(&s, "update", "show", stream); err != nil {
			return err
		}
		now := s.Update.Version + " " + s.Update.State
		if now != said {
			said, since = now, time.Now()
			fmt.Printf("CUT-STATE %s\n", now)
			if s.Update.State == "refused" || s.Update.State == "rolled_back" {
				fmt.Printf("because: %s; %+v\n", s.Update.Reason, s.Update.Rehearsal)
			}
		}
		if m.step == m.last && m.over(&s) {
			fmt.Println("CUT-DONE")
			return nil
		}
		if err := m.next(&s); err != nil {
			return err
		}
		if time.Since(since) > patience {
			return fmt.Errorf("nothing moves: step %d, %+v", m.step, s)
		}
		pause()
	}
}

// use starts, whenever a release is watched, what it crashes at if it does so late.
func use() {
	for ; ; pause() {
		if u := recorded(); u.State == "watch" {
			_ = exec.Command(trigger(u.Offer.Release.Version)).Run() // whether it is allowed does not matter
		}
	}
}

// next offers the next release when the present one has ended. Where many went wrong the stream is frozen, and the operator goes on.
func (m *machine) next(s *updateStream) error {
	if s.Frozen != "" {
		if _, err := bailey("update", "resume", stream); err != nil {
			return err
		}
	}
	if m.step > 0 && !m.over(s) || m.step == m.last {
		return nil
	}
	m.step++
	if err := m.offer(); err != nil {
		return err
	}
	_, err := bailey("update", "check")
	return err
}

// over reports whether nothing more comes of the present step. A release that the machine twice went down with is refused, whatever is in it, and one
// before it that is newer than what is installed may be tried then.
func (m *machine) over(s *updateStream) bool {
	if !slices.Contains(ended, s.Update.State) {
		return false
	}
	newest := strconv.Itoa(m.step)
	return s.Update.Version == newest || slices.ContainsFunc(s.Offers, func(o offer) bool { return o.Version == newest && o.Bad != "" })
}
