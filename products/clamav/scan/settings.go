package scan

import (
	"fmt"
	"strconv"
	"time"

	"bailey/products/clamav/clamd"
)

// Settings are the operator's settings of this product.
type Settings struct {
	Socket   string        // clamd's unix socket
	Transfer clamd.Mode    // auto, fildes or instream
	Deny     bool          // mode = enforce: a detection is denied; mode = monitor: it is only reported
	OnError  bool          // true: what cannot be scanned is denied
	OnLarge  bool          // true: what is larger than MaxSize is denied
	MaxSize  int64         // bytes; larger files are not scanned
	Wait     time.Duration // the longest time a question is asked to wait for a large file
	Timeout  time.Duration // a scan that takes longer is given up, also in the background
	Scans    int           // scans at once; keep it below clamd's MaxThreads
	Database string        // directory of clamd's signatures; empty: not watched
	Settle   time.Duration // after a change of Database without a new version, how long clamd may take to load it
	Poll     time.Duration // how often clamd and Database are looked at
}

// ParseSettings reads the settings strictly; a missing one has its default.
func ParseSettings(m map[string]string) (Settings, error) {
	s := Settings{}
	var err error
	text := func(key, fallback string) string {
		if v := m[key]; v != "" {
			return v
		}
		return fallback
	}
	choice := func(key, yes, no, fallback string) bool {
		v := text(key, fallback)
		if v != yes && v != no && err == nil {
			err = fmt.Errorf("setting %s = %q: known are %s and %s", key, v, yes, no)
		}
		return v == yes
	}
	duration := func(key, fallback string) time.Duration {
		d, e := time.ParseDuration(text(key, fallback))
		if (e != nil || d < 0) && err == nil {
			err = fmt.Errorf("setting %s = %q: must be a duration like 3s", key, m[key])
		}
		return d
	}
	number := func(key, fallback string, low, high int64) int64 {
		n, e := strconv.ParseInt(text(key, fallback), 10, 64)
		if (e != nil || n < low || n > high) && err == nil {
			err = fmt.Errorf("setting %s = %q: must be a number between %d and %d", key, m[key], low, high)
		}
		return n
	}
	s.Socket = text("socket", "/run/clamav/clamd.ctl")
	s.Transfer = clamd.Mode(text("transfer", string(clamd.Auto)))
	s.Deny = choice("mode", "enforce", "monitor", "enforce")
	s.OnError = choice("on_error", "deny", "allow", "allow")
	s.OnLarge = choice("on_large", "deny", "allow", "allow")
	s.MaxSize = number("max_size", strconv.Itoa(100<<20), 1, 1<<40)
	s.Wait = duration("max_extend", "3s")
	s.Timeout = duration("scan_timeout", "60s")
	s.Scans = int(number("scans", "8", 1, 1024))
	s.Database = m["database"]
	s.Settle = duration("database_settle", "11m")
	s.Poll = duration("poll", "2s")
	if s.Poll == 0 && err == nil {
		err = fmt.Errorf("setting poll: must not be 0")
	}
	return s, err
}
