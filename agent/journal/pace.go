package journal

import "time"

// keepFor is how long a flood of one kind may at the least need to push everything else out of the journal. Who can cause
// denies must not be able to make what an operator did disappear.
const keepFor = 7 * 24 * time.Hour

// shares says which part of the journal a kind that others than the operator cause may fill within keepFor. Kinds that are not
// here have no bound: only root causes them.
var shares = map[Kind]float64{KindDeny: 1.0 / 2, KindOverridden: 1.0 / 8, KindProduct: 1.0 / 8, KindHealth: 1.0 / 16, KindUnlock: 1.0 / 16}

// burstShare is the part that may be filled at once.
const burstShare = 1.0 / 32

// pace bounds the bytes that each kind writes. Not safe for concurrent use.
type pace struct {
	total   float64
	buckets map[Kind]*bucket
}

type bucket struct {
	tokens float64
	at     time.Duration
}

func newPace(total int64) *pace { return &pace{total: float64(total), buckets: map[Kind]*bucket{}} }

// admit reports whether n bytes of kind k may be written at the time now of a clock that never goes back.
func (p *pace) admit(k Kind, n int, now time.Duration) bool {
	share, bounded := shares[k]
	if !bounded {
		return true
	}
	b, ok := p.buckets[k]
	if !ok {
		b = &bucket{tokens: p.total * burstShare, at: now}
		p.buckets[k] = b
	}
	b.tokens = min(p.total*burstShare, b.tokens+(now-b.at).Seconds()*p.total*share/keepFor.Seconds())
	b.at = now
	if b.tokens < float64(n) {
		return false
	}
	b.tokens -= float64(n)
	return true
}
