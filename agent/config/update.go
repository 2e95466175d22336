package config

import (
	"cmp"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bailey/internal/bytesize"
	"bailey/internal/window"
	"bailey/update/release"
)

// Update is where releases of products come from, and what is done with them.
type Update struct {
	Mirrors   []string `toml:"mirrors" comment:"where releases are offered, in this order: https://…, http://… or file:///… with metadata and targets below it; empty: nothing is fetched"`
	Root      string   `toml:"root" comment:"the root that the mirrors are believed by, as bailey-fleet repo init made it"`
	Streams   []string `toml:"streams" comment:"which releases are wanted, e.g. \"acme/edr/code\" and \"acme/edr/content\"; for one of them alone, [update.stream.\"acme/edr/code\"] sets shadow, watch, defer, manual, lag, windows and urgent_ignores_windows"`
	Interval  Duration `toml:"interval" comment:"how often the mirrors are looked at"`
	Lease     Duration `toml:"lease" comment:"how old such a look may be when a release gets its say: what a vendor takes back must be heard of"`
	Bandwidth Size     `toml:"bandwidth" comment:"bytes a second that a download takes at most; 0B: no limit"`
	Disk      Size     `toml:"disk" comment:"the most that updates take on disk: what is downloaded and staged, and what deltas begin at; 0B: no limit"`

	Shadow  Duration `toml:"shadow" comment:"how long a new release runs beside the one in force, without a say and compared with it, before it takes its place"`
	Watch   Duration `toml:"watch" comment:"how long a new release is watched, unless it says so itself; harm within that time puts the one before back"`
	Defer   Duration `toml:"defer" comment:"how long a release must have been offered until it is taken, unless it is urgent"`
	Manual  bool     `toml:"manual" comment:"every release waits for the operator's word (bailey update apply)"`
	Lag     int      `toml:"lag" comment:"how many releases to stay behind the newest, 0 to 2; what is urgent, or raises the security epoch, is taken all the same"`
	Windows []string `toml:"windows" comment:"when a release may be put in force, by the local time, e.g. \"Mon-Fri 22:00-04:00\" and \"Sat,Sun 00:00-24:00\"; empty: always"`
	Urgent  bool     `toml:"urgent_ignores_windows" comment:"what is urgent is put in force outside of the windows, too"`

	Stream map[string]Stream `toml:"stream,omitempty" comment:"what is otherwise for one stream"`
}

// Stream is what is otherwise for one stream of updates. What is nil is as for all.
type Stream struct {
	Shadow  *Duration `toml:"shadow,omitempty"`
	Watch   *Duration `toml:"watch,omitempty"`
	Defer   *Duration `toml:"defer,omitempty"`
	Manual  *bool     `toml:"manual,omitempty"`
	Lag     *int      `toml:"lag,omitempty"`
	Windows *[]string `toml:"windows,omitempty"`
	Urgent  *bool     `toml:"urgent_ignores_windows,omitempty"`
}

// For returns what is wanted of one stream, complete.
func (u *Update) For(stream string) Stream {
	s := u.Stream[stream]
	return Stream{
		Shadow: cmp.Or(s.Shadow, &u.Shadow), Watch: cmp.Or(s.Watch, &u.Watch), Defer: cmp.Or(s.Defer, &u.Defer), Manual: cmp.Or(s.Manual, &u.Manual),
		Lag: cmp.Or(s.Lag, &u.Lag), Windows: cmp.Or(s.Windows, &u.Windows), Urgent: cmp.Or(s.Urgent, &u.Urgent),
	}
}

// Bounds of what an operator may set of updates.
const (
	minLook      = time.Second
	maxLook      = 7 * 24 * time.Hour
	maxLag       = 2
	minBandwidth = bytesize.Size(1 << 10)
	minDisk      = bytesize.Size(1 << 20)
	maxSize      = bytesize.Size(1 << 40)
)

// checkUpdate checks what is said of updates; whether a mirror has anything is found out when it is looked at.
func (c *Config) checkUpdate(add func(key, format string, args ...any)) {
	u := &c.Update
	for _, m := range u.Mirrors {
		at, err := url.Parse(m)
		switch {
		case err != nil || !slices.Contains([]string{"https", "http", "file"}, at.Scheme):
			add("update.mirrors", "%q is no mirror: write https://host/path, http://host/path or file:///path", m)
		case at.Scheme == "file" && (at.Host != "" || !filepath.IsAbs(at.Path)), at.Scheme != "file" && at.Host == "":
			add("update.mirrors", "%q is no mirror: write file:///path, or a host and a path", m)
		}
	}
	checkPaths(add, "update.root", []string{u.Root})
	vendors := map[string]string{}
	for _, text := range u.Streams {
		s, err := release.ParseStream(text)
		if err != nil {
			add("update.streams", "%s: write vendor/product/code or vendor/product/content", err)
			continue
		}
		if v, ok := vendors[s.Product]; ok && v != s.Vendor {
			add("update.streams", "the product %s has two vendors, %s and %s: a machine has one product of a name", s.Product, v, s.Vendor)
		}
		vendors[s.Product] = s.Vendor
	}
	if len(u.Mirrors) > 0 && len(u.Streams) == 0 {
		add("update.streams", "names none, so that nothing would ever be fetched from the mirrors")
	}
	checkSpan(add, "update.interval", u.Interval, minLook, maxLook)
	checkSpan(add, "update.lease", u.Lease, minLook, maxLease)
	for _, s := range []struct {
		key   string
		value Size
		min   bytesize.Size
	}{{"update.bandwidth", u.Bandwidth, minBandwidth}, {"update.disk", u.Disk, minDisk}} {
		switch {
		case s.value.bad != "":
			add(s.key, "%q is not a size: write a whole number with KiB, MiB or GiB, e.g. \"512KiB\"", s.value.bad)
		case s.value.Size != 0 && (s.value.Size < s.min || s.value.Size > maxSize):
			add(s.key, "%s is out of range: use 0B, or %s to %s", s.value, s.min, maxSize)
		}
	}
	all := u.For("")
	all.check(add, "update")
	for _, name := range slices.Sorted(maps.Keys(u.Stream)) {
		s := u.Stream[name]
		key := dotted([]string{"update", "stream", name})
		if !slices.Contains(u.Streams, name) {
			add(key, "is none of update.streams")
		}
		s.check(add, key)
	}
}

// check adds what is wrong with the settings of a stream below a key.
func (s *Stream) check(add func(key, format string, args ...any), key string) {
	if s.Shadow != nil {
		checkSpan(add, key+".shadow", *s.Shadow, 0, maxLease)
	}
	if s.Watch != nil {
		checkSpan(add, key+".watch", *s.Watch, minLook, maxLease)
	}
	if s.Defer != nil {
		checkSpan(add, key+".defer", *s.Defer, 0, maxLease)
	}
	if s.Lag != nil && (*s.Lag < 0 || *s.Lag > maxLag) {
		add(key+".lag", "%d is out of range: use 0 to %d", *s.Lag, maxLag)
	}
	if s.Windows != nil {
		for _, text := range *s.Windows {
			if _, err := window.Parse(text); err != nil {
				add(key+".windows", "%s", err)
			}
		}
	}
}

func checkSpan(add func(key, format string, args ...any), key string, d Duration, least, most time.Duration) {
	checkDuration(add, key, d, least, most, `"10m"`)
}

// dotted writes a key as the file has it: a name that is no bare word is quoted.
func dotted(key []string) string {
	var out []string
	for _, k := range key {
		if strings.ContainsFunc(k, func(r rune) bool { return !strings.ContainsRune(bareKey, r) }) {
			k = `"` + k + `"`
		}
		out = append(out, k)
	}
	return strings.Join(out, ".")
}

const bareKey = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
