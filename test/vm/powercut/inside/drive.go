package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ended are the states in which nothing more happens to an update.
var ended = []string{"committed", "refused", "rolled_back", "superseded"}

// drive offers one release after the other, each when the one before has ended, until there is none left or the power goes.
func (m *machine) drive() error {
	said, since := "", time.Now()
	for m.step < m.last || !m.over(said) {
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
		if err := m.next(&s); err != nil {
			return err
		}
		if time.Since(since) > patience {
			return fmt.Errorf("nothing moves: step %d, %+v", m.step, s)
		}
		pause()
	}
	fmt.Println("CUT-DONE")
	return nil
}

// use starts, whenever a release is watched, what it crashes at if it does so late.
func use() {
	for ; ; pause() {
		var n int
		text, err := os.ReadFile(step)
		if err != nil || !strings.HasSuffix(recorded(), " watch") {
			continue
		}
		if _, err := fmt.Sscan(string(text), &n); err == nil {
			_ = exec.Command(trigger(n)).Run() // whether it is allowed does not matter
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
	if m.step > 0 && !m.over(s.Update.Version+" "+s.Update.State) || m.step == m.last {
		return nil
	}
	m.step++
	if err := m.offer(); err != nil {
		return err
	}
	_, err := bailey("update", "check")
	return err
}

// over reports whether the update of the present step has ended.
func (m *machine) over(said string) bool {
	return slices.ContainsFunc(ended, func(state string) bool { return said == strconv.Itoa(m.step)+" "+state })
}
