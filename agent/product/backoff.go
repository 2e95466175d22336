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
	CrashesDay int           // and so are this many within 24 hours; default 10
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
	if b.CrashesDay == 0 {
		b.CrashesDay = 10
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
	keep, lately := c.ends[:0], 1
	for _, t := range c.ends {
		if now.Sub(t) < max(c.cfg.CrashesFor, 24*time.Hour) {
			keep = append(keep, t)
		}
		if now.Sub(t) < c.cfg.CrashesFor {
			lately++
		}
	}
	c.ends = append(keep, now)
	if lately >= c.cfg.Crashes || len(c.ends) >= c.cfg.CrashesDay {
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

// inherit goes on with what an earlier agent remembered.
func (c *crashes) inherit(l life) {
	c.delay, c.ends = min(l.Delay, c.cfg.Longest), nil
	for _, t := range l.Ends {
		c.ends = append(c.ends, ago(t))
	}
}

// forget is for an operator's start: a new chance.
func (c *crashes) forget() { c.ends, c.delay = nil, 0 }
