package product

import (
	"math/rand/v2"
	"time"
)

// Backoff says how a product that ended is started again. The zero value means the defaults.
type Backoff struct {
	First      time.Duration // before the first restart, doubled for each that follows; default 100 ms
	Longest    time.Duration // default 10 s
	Reset      time.Duration // running that long, it starts from First again; default 30 s
	Crashes    int           // this many ends …
	CrashesFor time.Duration // … within this time are a crash loop; default 5 in 60 s
}

func (b Backoff) withDefaults() Backoff {
	or := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	or(&b.First, 100*time.Millisecond)
	or(&b.Longest, 10*time.Second)
	or(&b.Reset, 30*time.Second)
	or(&b.CrashesFor, time.Minute)
	if b.Crashes == 0 {
		b.Crashes = 5
	}
	return b
}

// crashes is the memory of one product's ends.
type crashes struct {
	cfg   Backoff
	delay time.Duration
	ends  []time.Time
}

// ended notes that the product ended at now after running for up. It returns how long to wait, or loop.
func (c *crashes) ended(now time.Time, up time.Duration) (wait time.Duration, loop bool) {
	keep := c.ends[:0]
	for _, t := range c.ends {
		if now.Sub(t) < c.cfg.CrashesFor {
			keep = append(keep, t)
		}
	}
	c.ends = append(keep, now)
	if len(c.ends) >= c.cfg.Crashes {
		return 0, true
	}
	if up >= c.cfg.Reset || c.delay == 0 {
		c.delay = c.cfg.First
	} else {
		c.delay = min(2*c.delay, c.cfg.Longest)
	}
	// Up to a fifth longer, so that products that failed together do not come back together.
	return c.delay + rand.N(c.delay/5+1), false
}

// forget is for an operator's start: a new chance.
func (c *crashes) forget() { c.ends, c.delay = nil, 0 }
