// Package window is maintenance windows: the times of the week at which something may be done, by the machine's local time, as people write them:
// "Mon-Fri 22:00-04:00". It waits for nothing.
//
// Invariant: a Week is open at some time of every week, and one without windows always.
package window

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Window is one time of some days.
type Window struct {
	days     [7]bool // on which it begins
	from, to int     // minutes of the day; it ends on the next day if to is not after from
	text     string
}

// Week is all windows of a week; it is open when one of them is.
type Week []Window

const wholeDay = 24 * 60

var dayNames = []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}

// Parse reads a window: days, and from when to when, such as "Sat,Sun 00:00-24:00". What ends before it begins ends on the next day.
func Parse(text string) (Window, error) {
	w := Window{text: text}
	days, times, ok := strings.Cut(text, " ")
	from, to, ok2 := strings.Cut(times, "-")
	if !ok || !ok2 {
		return w, fmt.Errorf("%q is no window: write days and times, e.g. \"Mon-Fri 22:00-04:00\" or \"Sat,Sun 00:00-24:00\"", text)
	}
	for part := range strings.SplitSeq(days, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, b := slices.Index(dayNames, first), slices.Index(dayNames, last)
		if a < 0 || b < 0 {
			return w, fmt.Errorf("%q names no days: write Mon, Tue, Wed, Thu, Fri, Sat and Sun", text)
		}
		for d := a; ; d = (d + 1) % 7 {
			w.days[d] = true
			if d == b {
				break
			}
		}
	}
	var err error
	if w.from, err = minutes(from); err == nil {
		w.to, err = minutes(to)
	}
	if err == nil && (w.from == w.to || w.from == wholeDay) {
		err = fmt.Errorf("it has no time in it; a whole day is 00:00-24:00")
	}
	if err != nil {
		return w, fmt.Errorf("%q is no window: %w", text, err)
	}
	return w, nil
}

// ParseWeek reads windows.
func ParseWeek(texts []string) (Week, error) {
	var out Week
	for _, text := range texts {
		w, err := Parse(text)
		if err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	return out, nil
}

// minutes reads a time of the day, 24:00 included.
func minutes(text string) (int, error) {
	if text == "24:00" {
		return wholeDay, nil
	}
	t, err := time.Parse("15:04", text)
	if err != nil || len(text) != len("15:04") {
		return 0, fmt.Errorf("%q is no time from 00:00 to 24:00", text)
	}
	return t.Hour()*60 + t.Minute(), nil
}

// String is what Parse read.
func (w Window) String() string { return w.text }

func (w Window) open(t time.Time) bool {
	day, now := t.Weekday(), t.Hour()*60+t.Minute()
	if w.from < w.to {
		return w.days[day] && w.from <= now && now < w.to
	}
	return w.days[day] && w.from <= now || w.days[(day+6)%7] && now < w.to
}

// Open reports whether t is in one of the windows, by t's own location.
func (w Week) Open(t time.Time) bool {
	return len(w) == 0 || slices.ContainsFunc(w, func(one Window) bool { return one.open(t) })
}

// Next returns when one of the windows begins after t.
func (w Week) Next(t time.Time) time.Time {
	var next time.Time
	for i := range 8 {
		for _, one := range w {
			at := time.Date(t.Year(), t.Month(), t.Day()+i, 0, one.from, 0, 0, t.Location())
			if one.days[at.Weekday()] && at.After(t) && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	return next
}

// String lists the windows.
func (w Week) String() string {
	var out []string
	for _, one := range w {
		out = append(out, one.text)
	}
	return strings.Join(out, ", ")
}
