package trust

import (
	"context"
	"time"

	"bailey/update/release"
)

// Plan is everything that was verified in one look, for a process that did not look itself: it has no open files and no unread bytes.
type Plan struct {
	At       time.Time      `json:"at"`
	Expires  time.Time      `json:"expires"`
	Versions Versions       `json:"versions"`
	Streams  []StreamPlan   `json:"streams"`
	Policy   release.Policy `json:"policy"`
}

// StreamPlan is what one stream offers. Problem says why it offers nothing; it is that stream's alone.
type StreamPlan struct {
	Stream   string     `json:"stream"`
	Offers   []Offer    `json:"offers,omitempty"` // newest first
	Disabled []Unusable `json:"disabled,omitempty"`
	Unusable []Unusable `json:"unusable,omitempty"`
	Problem  string     `json:"problem,omitempty"`
}

// Plan returns what the streams offer that the recovery policy does not disable. It is an error if there is a policy and it cannot be read:
// without it, nobody knows what must not run.
func (v *View) Plan(ctx context.Context, streams ...release.Stream) (Plan, error) {
	p := Plan{At: v.At, Expires: v.Expires(), Versions: v.Versions()}
	var err error
	if p.Policy, err = v.Policy(ctx); err != nil {
		return Plan{}, err
	}
	for _, s := range streams {
		sp := StreamPlan{Stream: s.String()}
		offers, unusable, err := v.Offers(ctx, s)
		if err != nil {
			sp.Problem = err.Error()
		}
		for _, o := range offers {
			if reason, yes := p.Policy.Disables(s, o.Release.Version); yes {
				sp.Disabled = append(sp.Disabled, Unusable{Path: o.Path, Reason: reason})
				continue
			}
			sp.Offers = append(sp.Offers, o)
		}
		sp.Unusable = unusable
		p.Streams = append(p.Streams, sp)
	}
	return p, nil
}
