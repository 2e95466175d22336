package incident

import (
	"fmt"
	"testing"
	"time"

	"bailey/test/rig"
)

// Apple's OCSP responder.
//
// Date: 2020-11-12.
// Source: tidbits.com/2020/11/13; sentinelone.com/blog/what-happened-to-my-mac-apples-ocsp-apocalypse.
// Shipped: nothing: a service that every program start asked was there and did not answer. What to do when it was not there at all had
// been thought of. Programs took minutes to start, world-wide.
// Must: G2 G11. However the service fails, an exec takes no longer than its deadline, and soon no longer than before.
func TestC06Cloud(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const name = "Apple OCSP and trustd, 2020"
	for _, c := range []struct {
		story
		how string
	}{
		{story{ID: "C6-07a", Name: name, Must: "G2 G11", Long: true, Did: "asks a service that refuses connections"}, "refuse"},
		{story{ID: "C6-07b", Name: name, Must: "G2 G11", Long: true, Did: "asks a service whose connections never come about"}, "blackhole"},
		{story{ID: "C6-07c", Name: name, Must: "G2 G11", Long: true, Did: "asks a service that accepts and says nothing"}, "hang"},
		{story{ID: "C6-07d", Name: name, Must: "G2 G11", Long: true, Did: "asks a service that answers one byte a second"}, "drip"},
		{story{ID: "C6-07e", Name: name, Must: "G2 G11", Long: true, Did: "asks a service that is busy (429) for ever"}, "busy"},
		{story{ID: "C6-07f", Name: name, Must: "G2 G11", Long: true, Did: "asks a service whose TLS handshake does not go on"}, "tls"},
		{story{ID: "C6-07g", Name: name, Must: "G2 G11", Long: true, Did: "asks for a name that its name server does not answer"}, "dns"},
	} {
		s.replay(c.story, func(r *replay) {
			before := r.watchFor(300 * time.Millisecond)
			r.plays(r.spec(map[string]string{"cloud": c.how}))
			r.watchFor(2 * time.Second)
			if c.how != "refuse" {
				r.until("it is not waited for", notAnswering, r.isDegraded)
			}
			r.backToNormal(before, r.watchFor(300*time.Millisecond))
		})
	}
	s.replay(story{ID: "C6-07", Name: name, Must: "G2 G11", Did: "seven products whose cloud services fail in seven ways, all at once"}, func(r *replay) {
		hows := []string{"refuse", "blackhole", "hang", "drip", "busy", "tls", "dns"}
		before := r.watchFor(300 * time.Millisecond)
		r.watch(func() {
			for _, how := range hows {
				r.Install(rig.Spec{Name: "cloud-" + how, Questions: "exec,open", Settings: map[string]string{"cloud": how}})
			}
			r.until("nobody waits for any of them", notAnswering, func() error {
				for _, how := range hows[1:] {
					if err := r.degraded("cloud-" + how); err != nil {
						return err
					}
				}
				return nil
			})
		})
		if p := r.Product("cloud-refuse"); p.GetAuthority() != "live" {
			r.errorf("a service that is not there costs the product its say: %v", fmt.Sprint(p.GetAuthority(), p.GetCounters()))
		}
		r.backToNormal(before, r.watchFor(300*time.Millisecond))
	})
}
