package incident

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Cloudflare's feature file.
//
// Date: 2025-11-18.
// Source: ilert.com/postmortems/cloudflare-global-outage-nov-2025; the operator's post-mortem.
// Shipped: generated content, made anew every five minutes. A query returned each row twice, the file grew past a limit of 200
// entries, and the module that had room for 200 ended the proxy. Good and bad files came in turn, so that service flapped.
// Must: G1 G4 G5 G6. Each bad file is undone by itself, the release that is live in between is one that works, and the number of
// starts is bounded however many bad files come.
func TestC01FeatureFile(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.replay(story{ID: "C1-02", Name: "Cloudflare feature file, 2025", Must: "G1 G4 G5 G6",
		Did: "content with more entries than it has room for comes in turn with good content"}, func(r *replay) {
		release := func(version string, entries int) {
			sp := r.spec(nil)
			sp.Version, sp.Files = version, map[string]string{"content.txt": strings.Repeat("feature x\n", entries)}
			if entries <= 180 {
				r.plays(sp)
				return
			}
			r.product = r.Product(r.name)
			r.attempts(sp)
		}
		turns := 1
		if resultFile() != "" {
			turns = 3
		}
		release("1.0.0", 180)
		r.watch(func() {
			for i := range turns {
				release(fmt.Sprintf("2.%d.0", i), 360)
				r.backOn(fmt.Sprintf("1.%d.0", i), rollBack)
				release(fmt.Sprintf("1.%d.0", i+1), 180)
			}
		})
		r.answersAgain()
	})
	for _, c := range []struct {
		story
		settings map[string]string
	}{
		{story{ID: "C1-x1", Name: "another trigger: state that no start survives", Must: "G1 G4 G5",
			Did: "writes a state file that makes it panic at every later start"}, map[string]string{"state": "strict", "fault": "corrupt", "at": "ready"}},
		{story{ID: "C1-x2", Name: "another trigger: an end that is no error", Must: "G1 G4 G5",
			Long: true, Did: "ends with exit status 0 again and again"}, map[string]string{"fault": "exit0", "at": "ready"}},
	} {
		s.replay(c.story, func(r *replay) {
			r.watch(func() {
				r.attempts(r.spec(c.settings))
				r.until("it is off, and said to be", rollBack, r.isOff)
			})
			if h := r.Health("product." + r.name); h.GetStatus() != "failed" || h.GetRemedy() == "" {
				r.errorf("health: %v", h)
			}
		})
	}
}

// isOff is nil when the breaker has switched the product off.
func (r *replay) isOff() error {
	for _, p := range r.Status().GetProducts() {
		switch {
		case p.GetName() != r.name:
			continue
		case p.GetState() != "failed":
			return fmt.Errorf("it is %s after %d restarts: %s", p.GetState(), p.GetRestarts(), p.GetReason())
		case p.GetRestarts() > crashLoop:
			r.errorf("it was started again %d times", p.GetRestarts())
		}
		return nil
	}
	return errors.New("it is not there")
}
