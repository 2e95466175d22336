package incident

import (
	"fmt"
	"testing"
	"time"
)

// McAfee DAT 6807 and 6808.
//
// Date: 2012-08-17 to 22.
// Source: itpro.com/642472; theregister.com/2012/08/23/mcafee_net_cutoff_bug.
// Shipped: virus definitions that ended the on-access scanner behind a program that went on as if nothing had happened: users lost
// the network, and could use neither the console nor the updater.
// Must: G1 G2 G5 G8. Alive is who answers, not who has a heart-beat: not answering is noticed within 10 s, what waits is decided by
// the default at its deadline, afterwards nobody waits for the product any more, the console works and says so.
func TestC01SilentWorker(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.replay(story{ID: "C1-05", Name: "McAfee DAT 6807, 2012", Must: "G1 G2 G5 G8",
		Did: "its verdict worker ends without a word while its heart-beat goes on"}, func(r *replay) {
		before := r.watchFor(500 * time.Millisecond)
		r.plays(r.spec(map[string]string{"worker": "dies", "heartbeat": "true"}))
		r.watch(func() { r.until("it is noticed", notAnswering, r.isDegraded) })
		after := r.watchFor(500 * time.Millisecond)
		r.backToNormal(before, after)
		r.Must("status")
		if h := r.Health("product." + r.name + ".authority"); h.GetStatus() != "degraded" || h.GetRemedy() == "" {
			r.errorf("health: %v", h)
		}
	})
}

// isDegraded is nil when nobody waits for the product any more.
func (r *replay) isDegraded() error { return r.degraded(r.name) }

func (r *replay) degraded(name string) error {
	if p := r.Product(name); p.GetAuthority() != "degraded" {
		return fmt.Errorf("%s is %s, authority %s, %d misses", name, p.GetState(), p.GetAuthority(), p.GetCounters().GetMisses())
	}
	return nil
}

// backToNormal compares what canaries took before a fault and after it was dealt with.
func (r *replay) backToNormal(before, after felt) {
	r.t.Helper()
	more := after.control.longest() + r.strained(normalSlack)
	for _, c := range []struct {
		what      string
		was, then times
	}{{"execs", before.exec, after.exec}, {"opens", before.open, after.open}} {
		was, then := c.was.quantile(normalOfHundred), c.then.quantile(normalOfHundred)
		if then > 2*was+more {
			r.errorf("%d of 100 %s took up to %s after the product was degraded, %s before", normalOfHundred, c.what, then, was)
		}
	}
}
