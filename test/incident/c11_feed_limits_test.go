package incident

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// ClamAV's content network.
//
// Date: 2021-03.
// Source: blog.clamav.net/2021/03/clamav-cvds-cdiffs-and-magic-behind.html.
// Shipped: nothing: broken clients fetched whole databases without an end, and whoever looked like one was answered 429 and 403.
// Must: G11. A mirror that is busy, forbids or hangs costs the machine nothing; nobody asks again and again; and when it is sound the release comes.
func TestC11FeedLimits(t *testing.T) {
	t.Parallel()
	o := newOffering(t, nil, "c11-02a", "c11-02b")
	const name = "ClamAV content network, 2021"
	o.deliver(delivery{ID: "C11-02a", Name: name, Must: "G11", Stops: []string{""},
		Did: "is good; the mirror answers 429, 503 and 403 for a while"}, func(a *arrival) {
		a.installs()
		var asked atomic.Int64
		var say atomic.Int64
		a.vendor.Instead(func(w http.ResponseWriter, _ *http.Request) bool {
			asked.Add(1)
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(int(say.Load()))
			return true
		})
		e := a.content("2026.11.1", goodContent+"prefix /nothing\n", brieflyWatched)
		a.during(func() {
			for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusForbidden} {
				say.Store(int64(status))
				a.lookSays(fmt.Sprint(status))
			}
			time.Sleep(2 * time.Second) // nobody looks again by itself so soon
		})
		if n := asked.Load(); n > 3*perLook {
			a.errorf("the mirror was asked %d times in three looks", n)
		}
		a.goesOn()
		a.vendor.Instead(nil)
		a.comesInto(e, "the mirror was asked a few times at each look; sound again, it brought the release")
	})
	o.deliver(delivery{ID: "C11-02b", Name: name, Must: "G11", Long: true, Stops: []string{""},
		Did: "is good; the mirror takes requests and says nothing, then closes them"}, func(a *arrival) {
		a.installs()
		give := make(chan struct{})
		a.vendor.Instead(func(w http.ResponseWriter, r *http.Request) bool {
			select {
			case <-give:
			case <-r.Context().Done():
			}
			panic(http.ErrAbortHandler)
		})
		e := a.content("2026.11.1", goodContent+"prefix /nothing\n", brieflyWatched)
		a.during(func() {
			a.Must("update", "check")
			time.Sleep(3 * time.Second) // what the machine feels of a look that hangs
			close(give)
			a.lookSays("EOF")
		})
		a.goesOn()
		a.vendor.Instead(nil)
		a.comesInto(e, "nobody waited for the mirror; sound again, it brought the release")
	})
}

// perLook is how many files of a mirror that gives none are asked for at most in one look.
const perLook = 4

// lookSays has the agent look and waits until that went wrong in a way that has a word in it.
func (a *arrival) lookSays(word string) {
	a.t.Helper()
	a.Must("update", "check")
	a.until("the look says "+word, 20*time.Second, func() error {
		if p := a.looked(); !strings.Contains(p, word) {
			return fmt.Errorf("it says %q", p)
		}
		return nil
	})
}
