package agent

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReadiness()
		r.wait(t.Context(), "unknown") // returns at once
		r.begin("product")
		if r.is("product") {
			t.Error("a product that was only attached is ready")
		}
		go func() {
			time.Sleep(time.Second)
			r.ready("product")
			r.ready("product") // every later subscription says so too
		}()
		start := time.Now()
		r.wait(t.Context(), "product")
		if took := time.Since(start); took != time.Second || !r.is("product") {
			t.Errorf("waited %s, ready %v", took, r.is("product"))
		}
		r.end("product")
		if r.is("product") {
			t.Error("a product that is gone is ready")
		}
		r.begin("silent")
		start = time.Now()
		r.wait(t.Context(), "silent")
		if took := time.Since(start); took != readyPatience {
			t.Errorf("waited %s for a product that never subscribes", took)
		}
	})
}
