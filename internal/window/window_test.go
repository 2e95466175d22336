package window_test

import (
	"strings"
	"testing"
	"time"

	"bailey/internal/window"
)

// at is a time of the week of Monday, 23 November 2026.
func at(t *testing.T, text string) time.Time {
	t.Helper()
	day, clock, _ := strings.Cut(text, " ")
	c, err := time.Parse("15:04", clock)
	if err != nil {
		t.Fatal(err)
	}
	d := time.Date(2026, 11, 23, c.Hour(), c.Minute(), 30, 0, time.Local)
	for d.Weekday().String()[:3] != day {
		d = d.AddDate(0, 0, 1)
	}
	return d
}

func TestOpen(t *testing.T) {
	t.Parallel()
	for text, c := range map[string]struct {
		open, closed string
		next         string // after Thu 12:00
	}{
		"Mon-Fri 22:00-04:00":              {"Mon 22:00, Tue 03:59, Fri 23:00, Sat 03:59", "Mon 03:59, Mon 21:59, Tue 04:00, Sat 04:00, Sat 22:00, Sun 23:00", "Thu 22:00"},
		"Sat,Sun 00:00-24:00":              {"Sat 00:00, Sat 23:59, Sun 12:00", "Fri 23:59, Mon 00:00", "Sat 00:00"},
		"Fri-Mon 01:00-02:00":              {"Fri 01:00, Sat 01:59, Sun 01:30, Mon 01:30", "Tue 01:30, Thu 01:30, Fri 02:00", "Fri 01:00"},
		"Sun 23:00-24:00":                  {"Sun 23:59", "Sun 22:59, Mon 00:00", "Sun 23:00"},
		"Thu 10:00-11:00":                  {"Thu 10:00", "Thu 11:00, Thu 09:59", "Thu 10:00"},
		"Tue 03:00-04:00; Thu 13:00-13:01": {"Tue 03:30, Thu 13:00", "Thu 13:01, Tue 13:00", "Thu 13:00"},
		"Mon-Sun 00:00-24:00":              {"Mon 00:00, Thu 12:00, Sun 23:59", "", "Fri 00:00"},
		"":                                 {"Mon 00:00, Thu 12:00", "", ""},
		"Wed 12:00-00:00":                  {"Wed 12:00, Wed 23:59", "Thu 00:00, Wed 11:59", "Wed 12:00"},
		"Mon,Wed-Thu,Sun 20:00-06:00":      {"Sun 21:00, Mon 05:00, Mon 20:00, Wed 20:00, Fri 05:59", "Sun 19:00, Sun 05:00, Wed 05:00, Fri 20:00", "Thu 20:00"},
	} {
		var texts []string
		for one := range strings.SplitSeq(text, "; ") {
			if one != "" {
				texts = append(texts, one)
			}
		}
		w, err := window.ParseWeek(texts)
		if err != nil {
			t.Fatal(err)
		}
		for want, times := range map[bool]string{true: c.open, false: c.closed} {
			for one := range strings.SplitSeq(times, ", ") {
				if one != "" && w.Open(at(t, one)) != want {
					t.Errorf("%q at %s: want %t", text, one, want)
				}
			}
		}
		next := w.Next(at(t, "Thu 12:00"))
		if got := next.Format("Mon 15:04"); c.next != "" && (got != c.next || !w.Open(next) || next.Sub(at(t, "Thu 12:00")) > 7*24*time.Hour) {
			t.Errorf("%q begins next at %s, want %s", text, next, c.next)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                    "write days and times",
		"22:00-04:00":         "write days and times",
		"Mon 22:00":           "write days and times",
		"monday 22:00-23:00":  "names no days",
		"Mon-Abc 22:00-23:00": "names no days",
		"Mon, 22:00-23:00":    "names no days",
		"Mon 22:00-25:00":     "no time from 00:00",
		"Mon 9:00-10:00":      "no time from 00:00",
		"Mon 22:00-22:00":     "no time in it",
		"Mon 24:00-02:00":     "no time in it",
	} {
		if _, err := window.ParseWeek([]string{text}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
}
