package cli

import (
	"testing"
	"time"

	"bailey/agent/event"
)

func TestParseWhen(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("here", 2*3600)
	now := time.Date(2026, 1, 31, 15, 0, 0, 0, zone)
	for in, want := range map[string]time.Time{
		"":                          {},
		"10m":                       now.Add(-10 * time.Minute),
		"3d":                        now.Add(-72 * time.Hour),
		"1h30m":                     now.Add(-90 * time.Minute),
		"14:05":                     time.Date(2026, 1, 31, 14, 5, 0, 0, zone),
		"14:05:06":                  time.Date(2026, 1, 31, 14, 5, 6, 0, zone),
		"2026-01-30":                time.Date(2026, 1, 30, 0, 0, 0, 0, zone),
		"2026-01-30 14:05":          time.Date(2026, 1, 30, 14, 5, 0, 0, zone),
		"2026-01-30 14:05:06.5":     time.Date(2026, 1, 30, 14, 5, 6, 5e8, zone),
		"2026-01-30T14:05:06":       time.Date(2026, 1, 30, 14, 5, 6, 0, zone),
		"2026-01-30T14:05:06Z":      time.Date(2026, 1, 30, 14, 5, 6, 0, time.UTC),
		"2026-01-30T14:05:06-05:00": time.Date(2026, 1, 30, 19, 5, 6, 0, time.UTC),
	} {
		got, err := parseWhen("--since", in, now)
		if err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"10", "-10m", "yesterday", "25:00", "d", "-3d", "2026-13-01", "99999999d"} {
		if got, err := parseWhen("--since", in, now); err == nil {
			t.Errorf("%q is %v", in, got)
		}
	}
}

func TestParseProcess(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]event.ProcessKey{
		"7": {PID: 7}, "7:12": {PID: 7, Start: 12}, "7@12": {PID: 7, Start: 12}, "4294967295": {PID: 1<<32 - 1},
	} {
		if got, err := parseProcess(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"0", "x", "7:", ":7", "7:x", "7:1:2", "-7", "4294967296"} {
		if got, err := parseProcess(in); err == nil {
			t.Errorf("%q is %v", in, got)
		}
	}
}
