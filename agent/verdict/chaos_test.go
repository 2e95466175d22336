package verdict

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bailey/agent/event"
)

// habit is how one product of the property test behaves.
type habit struct {
	delay  func(*rand.Rand) time.Duration
	deny   bool // every file whose number divides by 7
	cache  bool
	twice  bool
	full   bool // now and then
	extend bool
}

var habits = []habit{
	{delay: func(r *rand.Rand) time.Duration { return time.Duration(r.IntN(2000)) * time.Microsecond }, cache: true},
	{delay: func(r *rand.Rand) time.Duration { return time.Duration(r.IntN(5)) * time.Millisecond }, deny: true, cache: true},
	{delay: func(*rand.Rand) time.Duration { return 450 * time.Millisecond }},                      // always late
	{delay: func(*rand.Rand) time.Duration { return 0 }, twice: true, cache: true},                 // answers twice
	{delay: func(r *rand.Rand) time.Duration { return time.Millisecond }, full: true, cache: true}, // its socket is full
	{delay: func(*rand.Rand) time.Duration { return 500 * time.Millisecond }, extend: true, cache: true},
	{delay: func(r *rand.Rand) time.Duration { return time.Duration(r.IntN(800)) * time.Millisecond }, deny: true}, // shadow
}

const shadowHabit = 6

func chaosVoters(absent event.ProductSet) *event.Voters {
	v := new(event.Voters)
	for i := range habits {
		p := event.ProductBit(i)
		v.Names[i] = string(rune('a' + i))
		switch {
		case absent&p != 0:
		case i == shadowHabit:
			v.Shadow |= p
		default:
			v.Live |= p
		}
	}
	v.MayDeny = v.Live &^ event.ProductBit(3)
	return v
}

// chaos is an electorate of products with habits.
type chaos struct {
	*bench
	mu      sync.Mutex
	r       *rand.Rand
	pending sync.WaitGroup
}

func (c *chaos) rand(f func(*rand.Rand)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c.r)
}

func (c *chaos) Voters(q *event.Question) (*event.Voters, event.ProductSet) { return c.p.Voters(q) }

func (c *chaos) Withdraw(*event.Voters, uint64, event.ProductSet) {}

func (c *chaos) Send(_ *event.Voters, q *event.Question, to, _ event.ProductSet, _ uint64, _ bool) (full, gone event.ProductSet) {
	for ps := to; ps != 0; ps &= ps - 1 {
		i := ps.First()
		h := habits[i]
		var delay time.Duration
		var refused bool
		c.rand(func(r *rand.Rand) { delay, refused = h.delay(r), h.full && r.IntN(3) == 0 })
		if refused {
			full |= event.ProductBit(i)
			continue
		}
		c.pending.Add(1)
		go c.reply(i, h, q.ID, delay, h.deny && q.File.Ino%7 == 0)
	}
	return full, 0
}

func (c *chaos) reply(i int, h habit, id uint64, delay time.Duration, deny bool) {
	defer c.pending.Done()
	if h.extend {
		_ = c.Extend(i, id, boot()+uint64(600*time.Millisecond))
	}
	time.Sleep(delay)
	// Late and second answers are what some of these products do; what the engine makes of them is what is tested.
	_ = c.Answer(i, id, deny, h.cache)
	if h.twice {
		_ = c.Answer(i, id, true, h.cache)
	}
}

// TestChaos: whatever products do, every question has exactly one verdict, in time, and all counts add up.
func TestChaos(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3} {
		synctest.Test(t, func(t *testing.T) { chaosRun(t, seed) })
	}
}

func chaosRun(t *testing.T, seed uint64) {
	c := &chaos{r: rand.New(rand.NewPCG(seed, 0))}
	c.bench = newBench(t, chaosVoters(0), func(cfg *Config) {
		cfg.Electorate, cfg.MaxInFlight, cfg.CacheSize = c, 300, 64
		cfg.ExtendCap = 700 * time.Millisecond
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()

	const workers, each = 16, 200
	asked := make([][]*event.Question, workers)
	starts := make([][]time.Time, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range each {
				var ino uint64
				var pause time.Duration
				var never bool
				c.rand(func(r *rand.Rand) {
					ino, pause, never = uint64(r.IntN(400)+1), time.Duration(r.IntN(60))*time.Millisecond, r.IntN(20) == 0
				})
				q := c.k.question(ino)
				q.NeverAsk = never
				asked[w] = append(asked[w], q)
				starts[w] = append(starts[w], time.Now())
				c.Ask(q)
				time.Sleep(pause)
			}
		})
	}
	stop := make(chan struct{})
	var meddler sync.WaitGroup
	meddler.Go(func() { c.meddle(stop) })
	wg.Wait()
	close(stop)
	meddler.Wait()
	c.pending.Wait()
	time.Sleep(2 * time.Second)

	for w, qs := range asked {
		for i, q := range qs {
			d, ok := c.k.verdict(q)
			if !ok {
				t.Fatalf("seed %d: a question has no verdict", seed)
			}
			if took := c.k.at[q].Sub(starts[w][i]); took > 1200*time.Millisecond {
				t.Errorf("seed %d: a verdict took %v", seed, took)
			}
			if !d.Allow && q.File.Ino%7 != 0 {
				t.Errorf("seed %d: a wrong deny: file %d, %+v", seed, q.File.Ino, d)
			}
		}
	}
	c.balance(t)
	recorded := map[uint64]int{}
	for _, e := range c.events() {
		if id := e.Verdict.QuestionID; id != 0 {
			recorded[id]++
		}
	}
	for id, n := range recorded {
		if n != 1 {
			t.Errorf("seed %d: question %d has %d recorded outcomes", seed, id, n)
		}
	}
	if s := c.Stats(); s.Allowed[event.ByCache]+s.Denied[event.ByCache] == 0 || s.Products[2].Degradations == 0 {
		t.Errorf("seed %d: the run did not exercise cache and degrading: %+v", seed, s)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("seed %d: run ended with %v", seed, err)
	}
}

// meddle kills and restarts products, invalidates and rewrites files until stop.
func (c *chaos) meddle(stop chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(37 * time.Millisecond):
		}
		victim := i % len(habits)
		switch i % 4 {
		case 0:
			c.p.voters.Store(chaosVoters(event.ProductBit(victim)))
			c.Gone(victim)
			_ = c.Invalidate("product_detached")
		case 1:
			c.Joined(victim, string(rune('a'+victim)))
			c.p.voters.Store(chaosVoters(0))
			_ = c.Invalidate("product_attached")
		case 2:
			c.Forget(1, uint64(i%400+1))
		case 3:
			c.Stats()
			c.CacheStats()
		}
	}
}

// TestNoMarkSurvivesAnInvalidation: when Invalidate returns, no ignore mark stands that an earlier answer set, however the
// two race.
func TestNoMarkSurvivesAnInvalidation(t *testing.T) {
	t.Parallel()
	b := newBench(t, live(0), func(c *Config) { c.Outcome = nil })
	b.p.quiet = true
	b.p.onSend = func(s sent) {
		_ = b.Answer(0, s.id, false, true)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range uint64(2) {
		wg.Go(func() {
			for ino := w<<32 + 1; ; ino++ {
				select {
				case <-stop:
					return
				default:
				}
				b.Ask(b.k.question(ino%64 + 1))
			}
		})
	}
	for i := range 40 {
		b.p.voters.Store(new(event.Voters)) // nobody answers under the new rules: any mark is an old one
		if err := b.Invalidate("rules"); err != nil {
			t.Fatal(err)
		}
		b.k.mu.Lock()
		n := len(b.k.marks)
		b.k.mu.Unlock()
		if n != 0 {
			t.Fatalf("round %d: %d marks survived", i, n)
		}
		b.p.voters.Store(live(0))
		for seen := b.Stats().Questions; b.Stats().Questions < seen+20; {
			runtime.Gosched()
		}
	}
	close(stop)
	wg.Wait()
}

// TestReloadUnderLoadNeverDenies is F8: while voters, their grants and the cache are replaced without pause, nothing is
// denied that no product denies.
func TestReloadUnderLoadNeverDenies(t *testing.T) {
	t.Parallel()
	b := newBench(t, live(0, 1, 2), func(c *Config) { c.Outcome, c.CacheSize = nil, 64 })
	b.p.quiet = true
	b.p.onSend = func(s sent) {
		for ps := s.to; ps != 0; ps &= ps - 1 {
			_ = b.Answer(ps.First(), s.id, false, true)
		}
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			v := live([]int{0, 1, 2}[i%3], 2)
			v.MissDenies = v.Live
			b.p.voters.Store(v)
			_ = b.Invalidate("grants")
			runtime.Gosched()
		}
	})
	for i := range uint64(20000) {
		b.Ask(b.k.question(i%1000 + 1))
	}
	close(stop)
	wg.Wait()
	if s := b.Stats(); len(s.Denied) != 0 || s.Questions != 20000 {
		t.Errorf("%d questions, denied %v", s.Questions, s.Denied)
	}
	b.balance(t)
}

// TestEvictionNeverDenies is F9: a cache that is far too small forgets, and forgetting means asking again.
func TestEvictionNeverDenies(t *testing.T) {
	t.Parallel()
	b := newBench(t, live(0), func(c *Config) { c.Outcome, c.CacheSize = nil, 1 })
	b.p.quiet = true
	b.p.onSend = func(s sent) { _ = b.Answer(0, s.id, false, true) }
	for range 3 {
		for i := range uint64(5000) {
			b.Ask(b.k.question(i + 1))
		}
	}
	s, c := b.Stats(), b.CacheStats()
	if len(s.Denied) != 0 || c.Evictions == 0 || c.Entries > c.Capacity {
		t.Errorf("denied %v, cache %+v", s.Denied, c)
	}
	b.balance(t)
}

// TestDeadlineQueue holds the heap against a sorted list.
func TestDeadlineQueue(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 7))
	const slots = 50
	var d deadlines
	d.init(slots)
	want := map[int32]uint64{}
	now := uint64(1)
	for range 20000 {
		if r.IntN(2) == 0 {
			i, at := int32(r.IntN(slots)), now+uint64(r.IntN(1000))
			if old, ok := want[i]; !ok || at < old {
				d.set(i, at)
				want[i] = at
			}
			continue
		}
		now += uint64(r.IntN(100))
		for {
			i, next := d.pop(now)
			if i == noSlot {
				for slot, at := range want {
					if at <= now || at < next {
						t.Fatalf("slot %d, due at %d, was not popped at %d; next %d", slot, at, now, next)
					}
				}
				break
			}
			if want[i] > now {
				t.Fatalf("slot %d popped at %d, due at %d", i, now, want[i])
			}
			delete(want, i)
		}
	}
}
