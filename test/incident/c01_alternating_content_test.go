package incident

import (
	"fmt"
	"strings"
	"testing"
)

// Cloudflare's feature file, as it came: good and bad files in turn.
//
// Date: 2025-11-18.
// Source: ilert.com/postmortems/cloudflare-global-outage-nov-2025; gncrypto.news/news/cloudflare-faulty-bot-config-outage.
// Shipped: content, every five minutes to everything. Half of the machines that made it made a file twice as long as the engine had room
// for, so the service flapped and looked like an attack.
// Must: G1 G4 G6 G7. No bad file has a say, each good one does, and after three bad ones within a day nothing new of the stream is tried until
// the operator has looked: the last good one stays.
func TestC01AlternatingContent(t *testing.T) {
	t.Parallel()
	o := newOffering(t, nil, "c1-02")
	o.deliver(delivery{ID: "C1-02", Name: "Cloudflare feature file, 2025", Must: "G1 G4 G6 G7", Stops: beforehand,
		Did: "three times content with more entries than it has room for, in turn with good content"}, func(a *arrival) {
		a.installs()
		features := func(n int) string { return strings.Repeat("feature x\n", n) }
		for i := range 3 {
			version := fmt.Sprintf("2026.11.%d", 2*i+1)
			if i > 0 { // the first good one came with the product
				if s := a.content(fmt.Sprintf("2026.11.%d", 2*i), features(150+i), brieflyWatched).after(nil); s.GetUpdate().GetState() != "committed" {
					a.errorf("good content %s is %s: %s", s.GetUpdate().GetVersion(), s.GetUpdate().GetState(), s.GetUpdate().GetReason())
				}
			}
			a.stopsAlone(a.content(version, features(360)))
		}
		good := a.content("2026.11.6", features(180))
		a.staysIn(good, held, "frozen: 3 releases went wrong within a day")
		if s := a.Stream(good.stream); s.GetInstalled() != "2026.11.4" || s.GetFrozen() == "" {
			a.errorf("the stream is frozen at %s: %s", s.GetInstalled(), s.GetFrozen())
		}
		a.goesOn()
		a.row.way.stopped, a.row.way.why = "rehearse, rehearse, rehearse", "then the stream was frozen at the last good content, until the operator resumed it"
		if resultFile() == "" {
			return // resuming takes a while
		}
		a.Must("update", "resume", "acme/"+good.stream)
		if s := good.after(nil); s.GetUpdate().GetState() != "committed" {
			a.errorf("after the operator looked, good content is %s: %s", s.GetUpdate().GetState(), s.GetUpdate().GetReason())
		}
	})
}
