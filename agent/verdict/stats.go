package verdict

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"bailey/agent/event"
)

// latencyBuckets: bucket i counts answers below 2^i µs, the last one all that took longer.
const latencyBuckets = 26

// counters are the engine's own; every question is counted under one reason and verdict, before the kernel gets it.
type counters struct {
	questions    atomic.Uint64
	reasons      [16][2]atomic.Uint64 // by reason; deny, allow
	foreign      atomic.Uint64
	untold       atomic.Uint64
	cut          atomic.Uint64
	sharedInVain atomic.Uint64
	products     [event.MaxProducts]productCounters
	names        struct {
		sync.Mutex
		of [event.MaxProducts]string
	}
}

// productCounters are one product's. A product that is asked is counted under exactly one of answered, overridden, missed,
// unsent, gone and unneeded.
type productCounters struct {
	live, shadow                                         atomic.Uint64
	answered, overridden, missed, unsent, gone, unneeded atomic.Uint64
	denied, late, extended, extendRefused, degradations  atomic.Uint64
	braked, critical, repeated                           atomic.Uint64
	owedMissed, owedUnneeded                             atomic.Int64
	took                                                 [verdicts]latencies
	_                                                    [64]byte // the next product's counters are another thread's
}

// What an answer can say.
const (
	saidAllow = iota
	saidDeny
	saidOverridden // a deny that does not count
	verdicts
)

// latencies count answers by how long they took.
type latencies struct {
	nanoseconds atomic.Uint64
	below       [latencyBuckets]atomic.Uint64
}

func (l *latencies) add(nanoseconds uint64) {
	l.nanoseconds.Add(nanoseconds)
	l.below[min(bits.Len64(nanoseconds/1000), latencyBuckets-1)].Add(1)
}

func (l *latencies) clear() {
	l.nanoseconds.Store(0)
	for i := range l.below {
		l.below[i].Store(0)
	}
}

func (l *latencies) load() Latencies {
	r := Latencies{Sum: time.Duration(l.nanoseconds.Load())}
	for i := range l.below {
		r.Below[i] = l.below[i].Load()
	}
	return r
}

func (c *counters) decided(d event.Decision) {
	verdict := 0
	if d.Allow {
		verdict = 1
	}
	c.reasons[d.Reason][verdict].Add(1)
}

func (c *counters) asked(to, shadow event.ProductSet) {
	for ps := to; ps != 0; ps &= ps - 1 {
		p := &c.products[ps.First()]
		if shadow.Has(ps.First()) {
			p.shadow.Add(1)
			continue
		}
		p.live.Add(1)
	}
}

// silent counts an outcome of each product in ps.
func (c *counters) silent(ps event.ProductSet, count func(*productCounters)) {
	for ; ps != 0; ps &= ps - 1 {
		count(&c.products[ps.First()])
	}
}

// owed notes answers that may still come for a question that is being forgotten.
func (c *counters) owed(missed, unneeded event.ProductSet) {
	for ; missed != 0; missed &= missed - 1 {
		c.products[missed.First()].owedMissed.Add(1)
	}
	for ; unneeded != 0; unneeded &= unneeded - 1 {
		c.products[unneeded.First()].owedUnneeded.Add(1)
	}
}

// repeat counts a deny that was given without asking those whose deny it was.
func (c *counters) repeat(k event.Kind, by event.ProductSet) {
	if k == event.Exec {
		c.silent(by, func(p *productCounters) { p.repeated.Add(1) })
	}
}

// Repeated returns how many execs were denied without asking the product, by a deny of its own that was remembered or
// shared.
func (e *Engine) Repeated(name string) uint64 {
	c := &e.stats
	c.names.Lock()
	defer c.names.Unlock()
	for i, n := range c.names.of {
		if n == name && name != "" {
			return c.products[i].repeated.Load()
		}
	}
	return 0
}

func (p *productCounters) answer(deny, overridden bool, latency uint64) {
	said := saidAllow
	if deny {
		p.denied.Add(1)
		said = saidDeny
	}
	if overridden {
		p.overridden.Add(1)
		said = saidOverridden
	} else {
		p.answered.Add(1)
	}
	p.took[said].add(latency)
}

func (c *counters) join(product int, name string) {
	p := &c.products[product]
	p.owedMissed.Store(0)
	p.owedUnneeded.Store(0)
	c.names.Lock()
	defer c.names.Unlock()
	if c.names.of[product] == name {
		return
	}
	c.names.of[product] = name
	for _, n := range []*atomic.Uint64{
		&p.live, &p.shadow, &p.answered, &p.overridden, &p.missed, &p.unsent, &p.gone, &p.unneeded,
		&p.denied, &p.late, &p.extended, &p.extendRefused, &p.degradations,
		&p.braked, &p.critical, &p.repeated,
	} {
		n.Store(0)
	}
	for i := range p.took {
		p.took[i].clear()
	}
}

// Stats is the engine's account since its start.
type Stats struct {
	Questions    uint64 // given to Ask; equals the sum over Allowed and Denied, but for those in flight and undecided
	Allowed      map[event.Reason]uint64
	Denied       map[event.Reason]uint64
	InFlight     int
	Foreign      uint64 // decided here, but the kernel had its answer from someone else
	Untold       uint64 // shadow questions that no slot was free for
	Cut          uint64 // shadow answers not waited for because the table was full
	SharedInVain uint64 // waited for an equal question and had to be asked on their own
	Products     []ProductStats
}

// ProductStats is one product's account. Live+Shadow = Answered+Overridden+Missed+Unsent+Gone+Unneeded, but for those in
// flight.
type ProductStats struct {
	Number        int
	Name          string
	Live          uint64 // questions that waited for it
	Shadow        uint64
	Answered      uint64
	Overridden    uint64 // denied what it may not deny
	Braked        uint64 // of those, because it is braked
	Critical      uint64 // of those, because the file is in the critical set
	Repeated      uint64 // execs denied without asking it, by a deny of its own that was remembered or shared
	Missed        uint64
	Unsent        uint64
	Gone          uint64
	Unneeded      uint64
	Denied        uint64 // overridden ones included
	Late          uint64 // answered after the miss was counted
	Extended      uint64
	ExtendRefused uint64
	Degradations  uint64
	Degraded      bool
	Mean          time.Duration // of its answers
	Took          Latencies     // all of them
	TookAllow     Latencies     // those that allowed
	TookDeny      Latencies     // those that denied, and could
	TookOverride  Latencies     // those that denied, and could not
}

// Latencies counts answers by how long they took.
type Latencies struct {
	Sum   time.Duration
	Below [latencyBuckets]uint64 // [i] counts answers below 2^i µs
}

// Add adds the counts of m.
func (l *Latencies) Add(m Latencies) {
	l.Sum += m.Sum
	for i, n := range m.Below {
		l.Below[i] += n
	}
}

// Quantile returns an upper bound of the given part of the latencies, e.g. 0.99, and 0 if there are none.
func (l *Latencies) Quantile(part float64) time.Duration {
	var all, sum uint64
	for _, n := range l.Below {
		all += n
	}
	if all == 0 {
		return 0
	}
	for i, n := range l.Below {
		if sum += n; float64(sum) >= part*float64(all) {
			return time.Microsecond << i
		}
	}
	return time.Microsecond << (latencyBuckets - 1)
}

// Stats returns the account. Counters are read one by one: it adds up exactly when nothing is in flight.
func (e *Engine) Stats() Stats {
	c := &e.stats
	s := Stats{
		Allowed: make(map[event.Reason]uint64), Denied: make(map[event.Reason]uint64),
		InFlight: e.InFlight(), Foreign: c.foreign.Load(), Untold: c.untold.Load(), Cut: c.cut.Load(),
		SharedInVain: c.sharedInVain.Load(),
	}
	for _, r := range event.Reasons() {
		if n := c.reasons[r][0].Load(); n != 0 {
			s.Denied[r] = n
		}
		if n := c.reasons[r][1].Load(); n != 0 {
			s.Allowed[r] = n
		}
	}
	s.Questions = c.questions.Load()
	c.names.Lock()
	names := c.names.of
	c.names.Unlock()
	for i, name := range names {
		if name != "" {
			s.Products = append(s.Products, e.productStats(i, name))
		}
	}
	return s
}

func (e *Engine) productStats(i int, name string) ProductStats {
	p := &e.stats.products[i]
	s := ProductStats{
		Number: i, Name: name, Live: p.live.Load(), Shadow: p.shadow.Load(), Answered: p.answered.Load(),
		Overridden: p.overridden.Load(), Missed: p.missed.Load(), Unsent: p.unsent.Load(), Gone: p.gone.Load(),
		Unneeded: p.unneeded.Load(), Denied: p.denied.Load(), Late: p.late.Load(), Extended: p.extended.Load(),
		Braked: p.braked.Load(), Critical: p.critical.Load(), Repeated: p.repeated.Load(),
		ExtendRefused: p.extendRefused.Load(), Degradations: p.degradations.Load(), Degraded: e.Degraded(i),
		TookAllow: p.took[saidAllow].load(), TookDeny: p.took[saidDeny].load(), TookOverride: p.took[saidOverridden].load(),
	}
	for _, l := range []Latencies{s.TookAllow, s.TookDeny, s.TookOverride} {
		s.Took.Add(l)
	}
	if n := s.Answered + s.Overridden; n != 0 {
		s.Mean = s.Took.Sum / time.Duration(n)
	}
	return s
}
