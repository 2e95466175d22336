package hub

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"

	"github.com/google/go-cmp/cmp"
)

// entry returns what the health registry says of a component, as "status: summary".
func entry(h *Hub, component string) string {
	for _, e := range h.cfg.Health.List() {
		if e.Component == component {
			if e.Status != health.OK && e.Remedy == "" {
				return "no remedy: " + e.Summary
			}
			return e.Status.String() + ": " + e.Summary
		}
	}
	return ""
}

// authorities returns the authority and reason of all product events that came so far.
func authorities(t *testing.T, tap *Tap) []string {
	t.Helper()
	synctest.Wait()
	var out []string
	for len(tap.ch) > 0 {
		e, _, err := tap.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e.Product.Authority+": "+e.Product.Reason)
	}
	return out
}

func states(w *wire) []string {
	var out []string
	for _, f := range w.of("state") {
		out = append(out, f.text)
	}
	return out
}

func TestEveryTransitionIsToldToAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, e := newHub(t, nil)
		w := &wire{}
		c := attach(t, h, everything("p"), w, Subscription{Questions: event.KindsOf(event.Exec)})
		tap := h.Tap(event.KindsOf(event.Product), 64)
		e.take()
		voters := func() *event.Voters { v, _ := h.Voters(&event.Question{Kind: event.Exec}); return v }
		p := event.ProductBit(c.Number())

		time.Sleep(time.Second)
		h.SetDegraded(c.Number(), true, "missed 3 questions in a row")
		if got := entry(h, "product.p.authority"); got != "degraded: not waited for: missed 3 questions in a row" {
			t.Errorf("health: %q", got)
		}
		since := boot()
		time.Sleep(time.Second)
		h.SetBraked("p", true, "it denied 6 different files")
		if v := voters(); v.MayDeny != 0 || v.Braked != p || v.Live != p {
			t.Errorf("voters of a braked product: %+v", v)
		}
		if d := cmp.Diff([]string{"brake 0", "invalidate brake"}, e.take()); d != "" {
			t.Error(d)
		}
		time.Sleep(time.Second)
		h.SetDegraded(c.Number(), false, "no miss in 30s")
		s := c.Stats()
		if s.Authority != "braked" || s.Reason != "it denied 6 different files" || s.Since != since+uint64(time.Second) {
			t.Errorf("authority %q since %d (now %d): %q", s.Authority, s.Since, boot(), s.Reason)
		}
		if got := entry(h, "product.p.authority"); !strings.HasPrefix(got, "ok: ") {
			t.Errorf("health: %q", got)
		}
		h.SetBraked("p", false, "the operator released the brake")
		if v := voters(); v.MayDeny != p || v.Braked != 0 {
			t.Errorf("voters of a released product: %+v", v)
		}
		if d := cmp.Diff([]string{"invalidate brake"}, e.take()); d != "" {
			t.Error(d)
		}
		m := everything("p")
		m.Shadow = true
		h.Regrant(c, m)
		want := []string{
			"degraded: missed 3 questions in a row",
			"braked: it denied 6 different files; and not waited for: missed 3 questions in a row",
			"braked: it denied 6 different files",
			"live: the operator released the brake",
			"shadow: the operator changed its grants",
		}
		if d := cmp.Diff(want, authorities(t, tap)); d != "" {
			t.Error("events: " + d)
		}
		// The product hears of the newest only, when changes come faster than it is sent them.
		got := states(w)
		if len(got) == 0 || got[len(got)-1] != want[len(want)-1] {
			t.Errorf("the product was told %q", got)
		}
	})
}

func TestABrakedProductIsBrakedInItsNextRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(t, nil)
		h.SetBraked("p", true, "why") // before it runs at all, as after a restart of the agent
		tap := h.Tap(event.KindsOf(event.Product), 64)
		for range 2 {
			w := &wire{}
			c := attach(t, h, everything("p"), w, Subscription{Questions: event.KindsOf(event.Exec)})
			attach(t, h, everything("other"), &wire{}, Subscription{Questions: event.KindsOf(event.Exec)})
			v, _ := h.Voters(&event.Question{Kind: event.Exec})
			if v.Braked != event.ProductBit(c.Number()) || v.MayDeny.Len() != 1 || v.Live.Len() != 2 {
				t.Errorf("voters %+v", v)
			}
			if d := cmp.Diff([]string{"braked: why"}, authorities(t, tap)); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff([]string{"braked: why"}, states(w)); d != "" {
				t.Error(d)
			}
			if h.Authority("p") != "braked" || h.Authority("other") != "live" || h.Authority("nobody") != "" {
				t.Error("the wrong product is braked")
			}
			h.Close()
			h.closed = false
		}
	})
}

func TestSlowReaderIsSaidToBeAndToHaveRecovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(t, func(c *Config) { c.Window, c.QueueEvents = 10, 20 })
		w := &wire{}
		c := attach(t, h, everything("p"), w, Subscription{Events: event.KindsOf(event.CloseWrite)})
		tap := h.Tap(event.KindsOf(event.Product), 64)
		lose := func() {
			for range 40 {
				h.Publish(closeWrite("/x"))
			}
			synctest.Wait()
		}
		lose()
		time.Sleep(20 * time.Second)
		lose()
		time.Sleep(20 * time.Second) // 40 s after the first loss, 20 s after the last
		if s := c.Stats(); s.Authority != "live" || !strings.Contains(s.Reason, "loses events") {
			t.Errorf("%+v", s)
		}
		if got := entry(h, "product.p.events"); got != "degraded: it loses events: it reads them too slowly" {
			t.Errorf("health: %q", got)
		}
		time.Sleep(11 * time.Second)
		if s := c.Stats(); s.Reason != "" {
			t.Errorf("%+v", s)
		}
		if got := entry(h, "product.p.events"); got != "ok: it gets all of its events" {
			t.Errorf("health: %q", got)
		}
		want := []string{"live: loses events: it reads them too slowly", "live: lost no event in 30s"}
		if d := cmp.Diff(want, authorities(t, tap)); d != "" {
			t.Error(d)
		}
		if got := states(w); len(got) != 0 {
			t.Errorf("its authority did not change, and it was told %q", got)
		}
		h.Detach(c)
		if got := entry(h, "product.p.events"); got != "" {
			t.Errorf("health of a product that is gone: %q", got)
		}
	})
}
