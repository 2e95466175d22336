package agent

import (
	"testing"
	"testing/synctest"
	"time"
)

// seat is what has a name.
type seat struct{ name string }

func (s *seat) Name() string { return s.name }

func TestReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReadiness()
		r.wait(t.Context(), "unknown") // returns at once
		p, silent := &seat{"product"}, &seat{"silent"}
		r.begin(p)
		if r.is("product") {
			t.Error("a product that was only attached is ready")
		}
		go func() {
			time.Sleep(time.Second)
			r.ready(p)
			r.ready(p) // every later subscription says so too
		}()
		start := time.Now()
		r.wait(t.Context(), "product")
		if took := time.Since(start); took != time.Second || !r.is("product") {
			t.Errorf("waited %s, ready %v", took, r.is("product"))
		}
		p.name = "another"
		if r.is("product") || !r.is("another") {
			t.Error("a product that goes on under another name is not ready under that one")
		}
		r.end(p)
		if r.is("another") {
			t.Error("a product that is gone is ready")
		}
		r.begin(silent)
		start = time.Now()
		r.wait(t.Context(), "silent")
		if took := time.Since(start); took != readyPatience {
			t.Errorf("waited %s for a product that never subscribes", took)
		}
	})
}
