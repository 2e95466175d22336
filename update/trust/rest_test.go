package trust_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"bailey/update/trust"
	"bailey/update/updatetest"
)

// TestRests follows two mirrors, the first of which does not answer: it is not asked each time, and is gone back to.
func TestRests(t *testing.T) {
	t.Parallel()
	r := updatetest.New(now)
	for name, c := range map[string]struct {
		status int
		header string
		wants  []time.Duration // when the first mirror is asked, after the beginning
	}{
		"longer_each_time":     {status: http.StatusBadGateway, wants: []time.Duration{0, time.Minute, 2 * time.Minute, 4 * time.Minute, 9 * time.Minute, 23 * time.Minute, 38 * time.Minute, 53 * time.Minute}},
		"as_long_as_it_asks":   {status: http.StatusTooManyRequests, header: "1800", wants: []time.Duration{0, 30 * time.Minute}},
		"by_its_clock":         {status: http.StatusServiceUnavailable, header: "Sun, 22 Nov 2026 12:30:00 GMT", wants: []time.Duration{0, 30 * time.Minute}},
		"an_hour_at_most":      {status: http.StatusTooManyRequests, header: "1000000000", wants: []time.Duration{0}},
		"not_what_nobody_says": {status: http.StatusTooManyRequests, header: "-7", wants: []time.Duration{0, time.Minute, 2 * time.Minute, 4 * time.Minute, 9 * time.Minute, 23 * time.Minute, 38 * time.Minute, 53 * time.Minute}},
		"not_there":            {status: http.StatusForbidden, wants: []time.Duration{0, time.Minute, 2 * time.Minute, 4 * time.Minute, 9 * time.Minute, 23 * time.Minute, 38 * time.Minute, 53 * time.Minute}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, silent := now, true
			var asked []time.Duration
			both := &updatetest.Server{Repository: r, Instead: func(w http.ResponseWriter, r *http.Request) bool {
				if !silent || !strings.HasPrefix(r.URL.Path, "/first/") {
					r.URL.Path = r.URL.Path[strings.Index(r.URL.Path[1:], "/")+1:]
					return false
				}
				if d := at.Sub(now); len(asked) == 0 || asked[len(asked)-1] != d {
					asked = append(asked, d)
				}
				w.Header().Set("Date", "Sun, 22 Nov 2026 12:00:00 GMT")
				if c.header != "" {
					w.Header().Set("Retry-After", c.header)
				}
				w.WriteHeader(c.status)
				return true
			}}
			server := httptest.NewServer(both)
			t.Cleanup(server.Close)
			cfg := config(t, r, server.URL+"/first", server.URL+"/second")
			cfg.Now = func() time.Time { return at }
			client, err := trust.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			refresh := func() {
				t.Helper()
				v, err := client.Refresh(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				v.Close()
			}
			for ; at.Before(now.Add(time.Hour)); at = at.Add(time.Minute) {
				refresh()
			}
			spread := func(i int) time.Duration { return c.wants[i]/5 + time.Minute }
			if len(asked) != len(c.wants) {
				t.Fatalf("asked at %v, want %v", asked, c.wants)
			}
			for i, d := range asked {
				if late := d - c.wants[i]; late < 0 || late > 0 && c.header == "" || late > spread(i) {
					t.Errorf("asked at %v, want %v", asked, c.wants)
				}
			}
			silent = false
			both.Seen()
			client.Hurry()
			refresh()
			if seen := strings.Join(both.Seen(), "\n"); seen == "" {
				t.Error("nobody was asked")
			}
		})
	}
}

// TestAllRest: with no mirror to ask, the reason is what they said.
func TestAllRest(t *testing.T) {
	t.Parallel()
	r := updatetest.New(now)
	server := httptest.NewServer(&updatetest.Server{Repository: r, Instead: func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}})
	t.Cleanup(server.Close)
	client, err := trust.New(config(t, r, server.URL))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"the server says 503", "not asked again before 2026-11-22T12:0"} {
		if _, err := client.Refresh(t.Context()); !errors.Is(err, trust.ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}
