package incident

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// CrowdStrike Falcon, channel file 291.
//
// Date: 2024-07-19.
// Source: techtarget.com/searchsecurity/news/366602392; postmortems.app, CrowdStrike; the vendor's root cause analysis.
// Shipped: content, to every sensor at once. A template had 21 fields and the sensor filled in 20. Every instance before had a
// wildcard in the last one; two new ones had not, and the interpreter read behind the end of an array in a driver that starts
// at boot. 8.5 million machines went down, again at each start, and were repaired by hand.
// Must: G1 G2 G4 G5 G6. The engine dies as often as it likes: whoever waits for it is answered by the default, the other product
// notices nothing, and the content before is live again within half a minute, with no network and nobody's help.
func TestC01ChannelFile291(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, c := range []struct {
		story
		content  string
		settings map[string]string
	}{
		{story: story{ID: "C1-01a", Name: "CrowdStrike channel file 291, 2024", Must: "G1 G2 G4 G5 G6",
			Did: "content makes its engine panic at every load"}, content: badContent + "check load\n"},
		{story: story{ID: "C1-01b", Name: "CrowdStrike channel file 291, 2024", Must: "G1 G2 G4 G5 G6",
			Did: "content loads cleanly and makes its engine panic at the first match"}, content: badContent},
		{story: story{ID: "C1-01c", Name: "CrowdStrike channel file 291, 2024", Must: "G1 G2 G4 G5 G6",
			Did: "dies of SIGSEGV at its first question"}, content: goodContent, settings: map[string]string{"fault": "segv", "at": "question"}},
		{story: story{ID: "C1-01d", Name: "CrowdStrike channel file 291, 2024", Must: "G1 G2 G4 G5 G6", Long: true,
			Did: "panics some seconds after each start"}, content: goodContent, settings: map[string]string{"fault": "panic", "at": "3s"}},
	} {
		s.replay(c.story, func(r *replay) {
			sp := r.spec(nil)
			sp.Files = map[string]string{"content.txt": goodContent}
			r.plays(sp)
			next := r.spec(c.settings)
			next.Version, next.Files = "2.0.0", map[string]string{"content.txt": c.content}
			r.watch(func() {
				r.attempts(next) // that it runs for a moment is no proof of anything
				r.backOn("1.0.0", rollBack)
			})
			r.answersAgain()
		})
	}
}

// Content of 21 fields, of which the sensor fills in 20: with a wildcard in the last one nobody reads it.
const (
	fields      = ",*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*,"
	goodContent = "instance /evil" + fields + "*\n"
	badContent  = "instance *" + fields + "pipe\n"
)

// backOn waits until the product runs a release, and checks that the breaker needed no more than its number of crashes.
func (r *replay) backOn(release string, within time.Duration) {
	r.t.Helper()
	r.until("release "+release+" runs again", within, func() error {
		p := r.Product(r.name)
		if n := p.GetRestarts() - r.product.GetRestarts(); n < crashLoop {
			return fmt.Errorf("it was started again %d times", n)
		}
		if p.GetState() != "running" || !strings.HasPrefix(p.GetRelease(), release+"-") || p.GetAuthority() != "live" {
			return fmt.Errorf("%s of %s, authority %s: %s", p.GetState(), p.GetRelease(), p.GetAuthority(), p.GetReason())
		}
		return nil
	})
	if n := r.Product(r.name).GetRestarts() - r.product.GetRestarts(); n > crashLoop+1 { // the installation is one
		r.errorf("it was started %d times before it went back", n)
	}
}

// answersAgain checks that the product is asked and answers.
func (r *replay) answersAgain() {
	r.t.Helper()
	before := r.Product(r.name).GetCounters().GetAnswers()
	if err := opens(r.file); err != nil {
		r.errorf("open: %v", err)
	}
	r.until("it answers", 5*time.Second, func() error {
		if r.Product(r.name).GetCounters().GetAnswers() <= before {
			return fmt.Errorf("%d answers", before)
		}
		return nil
	})
}
