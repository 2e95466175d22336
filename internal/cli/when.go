package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"bailey/agent/event"
)

// parseWhen reads a time: a duration back from now, or a time of this machine's clock. Empty is no time.
func parseWhen(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, ok := parseSpan(s); ok {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateTime, "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{time.TimeOnly, "15:04"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			y, m, d := now.Date()
			return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), now.Location()), nil
		}
	}
	return time.Time{}, fmt.Errorf("%s %q is no time: write a duration like 10m or 3d, or a time like 15:04 or \"2026-01-31 15:04:05\"", flag, s)
}

// parseSpan reads a duration that is not negative; days are written 3d.
func parseSpan(s string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, true
		}
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d >= 0
}

// parseProcess reads PID, PID:START or, as events show keys, PID@START.
func parseProcess(s string) (event.ProcessKey, error) {
	pid, start, both := strings.Cut(strings.Replace(s, "@", ":", 1), ":")
	var k event.ProcessKey
	n, err := strconv.ParseUint(pid, 10, 32)
	if err == nil && both {
		k.Start, err = strconv.ParseUint(start, 10, 64)
	}
	if err != nil || n == 0 {
		return k, fmt.Errorf("--process %q is no process: write its pid, or PID:START with the start that bailey events --json shows", s)
	}
	k.PID = uint32(n)
	return k, nil
}
