package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bailey/update/trust"
)

func says(status int, header ...string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		rec := httptest.NewRecorder()
		for i := 0; i < len(header); i += 2 {
			rec.Header().Set(header[i], header[i+1])
		}
		rec.WriteHeader(status)
		return rec.Result(), nil
	}
}

// outages are the ways in which a mirror says nothing.
var outages = map[string]struct {
	how  func(*http.Request) (*http.Response, error)
	most int // requests in an hour
}{
	"429":               {says(http.StatusTooManyRequests), 10},
	"429_for_an_hour":   {says(http.StatusTooManyRequests, "Retry-After", "3600"), 1},
	"503":               {says(http.StatusServiceUnavailable), 10},
	"503_for_two_hours": {says(http.StatusServiceUnavailable, "Date", "Sat, 01 Jan 2000 00:00:00 GMT", "Retry-After", "Sat, 01 Jan 2000 02:00:00 GMT"), 1},
	"403":               {says(http.StatusForbidden), 10},
	"404":               {says(http.StatusNotFound), 10},
	"hang": {func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}, 10},
	"refused": {func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }, 10},
}

// TestAnOutageOfAnHour is the end of a distribution network under its own clients (ClamAV, 2021). No agent asks more than ten times in the hour,
// none goes back or gives a release up because of it, also where one waits to be put in force, and all have it soon after.
func TestAnOutageOfAnHour(t *testing.T) {
	t.Parallel()
	for name, outage := range outages {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newSigned(t, true)
				w.cfg.Lease = 10 * time.Minute
				w.boot()
				publish := func(version, rules string) {
					w.repo.Later(time.Since(w.repo.Now))
					w.publish(version, rules)
				}
				publish("1", "one")
				ctx, stop := context.WithCancel(t.Context())
				var run sync.WaitGroup
				run.Go(func() { _ = w.c.Run(ctx) })
				pass := func(d time.Duration) {
					<-time.After(d)
					synctest.Wait()
				}
				pass(10 * time.Minute)
				if w.inForce() != "7.1 with one" {
					t.Fatal(w.inForce())
				}

				publish("2", "two")
				if err := w.c.Pause(content); err != nil { // it gets as far as it can
					t.Fatal(err)
				}
				pass(time.Minute)
				if u := w.update(content); u.State != Promote {
					t.Fatalf("%+v", u)
				}
				w.line.become(outage.how)
				if err := w.c.Resume(content); err != nil {
					t.Fatal(err)
				}
				pass(time.Hour)
				asked := w.line.become(nil)
				if asked == 0 || asked > outage.most {
					t.Errorf("asked %d times within the hour, at most %d", asked, outage.most)
				}
				pass(30 * time.Minute)
				stop()
				run.Wait()
				if u := w.update(content); u.State != Committed || w.inForce() != "7.1 with two" {
					t.Errorf("%s %s: %s", u.State, u.Reason, w.inForce())
				}
				if slices.ContainsFunc(w.told, func(m string) bool { return strings.HasSuffix(m, "refused") || strings.HasSuffix(m, "back") }) {
					t.Errorf("told %q", w.told)
				}
			})
		})
	}
}

// TestAReleaseIsNotGivenUpBecauseOfItsMirror: what cannot be had says nothing of the release, however long that lasts.
func TestAReleaseIsNotGivenUpBecauseOfItsMirror(t *testing.T) {
	t.Parallel()
	for _, class := range []error{trust.ErrUnavailable, trust.ErrSlow, trust.ErrSpace} {
		w := newWorld(t, content)
		w.preinstall("7.1", "old")
		w.offer(content, "1", map[string]string{"rules": "one"}, nil)
		w.repo.silent = fmt.Errorf("it is %w", class)
		for range 200 {
			w.now = w.now.Add(5 * time.Minute)
			w.step()
		}
		if u := w.update(content); u.State != Fetch || u.Attempts <= maxAttempts {
			t.Errorf("%v: %+v", class, u)
		}
		w.repo.silent = nil
		w.now = w.now.Add(longestWait)
		if u := w.settle(content); u.State != Committed {
			t.Errorf("%v: %+v", class, u)
		}
	}
}

// TestAFailedDownloadIsNotLeftUntilTheNextLook: it is tried again as soon as it is due, however long the operator has it rest between looks.
func TestAFailedDownloadIsNotLeftUntilTheNextLook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSigned(t, true)
		w.cfg.Interval = 24 * time.Hour
		w.boot()
		w.repo.Later(time.Since(w.repo.Now))
		w.publish("1", "one")
		w.line.targets = func(*http.Request) (*http.Response, error) { return nil, errors.New("connection reset") }
		ctx, stop := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { _ = w.c.Run(ctx) })
		<-time.After(time.Minute)
		if u := w.update(content); u.State != Fetch || u.Attempts < 2 {
			t.Fatalf("after a minute: %+v", u)
		}
		w.line.mu.Lock()
		w.line.targets = nil
		w.line.mu.Unlock()
		<-time.After(5 * time.Minute)
		stop()
		run.Wait()
		if u := w.update(content); u.State != Committed {
			t.Errorf("five minutes after the line was mended: %+v", u)
		}
	})
}
