package verdict

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bailey/agent/event"
)

// kernel stands for the sensor: it remembers every verdict and fails a question that is answered or released twice.
type kernel struct {
	tb       testing.TB
	mu       sync.Mutex
	given    map[*event.Question]event.Decision
	at       map[*event.Question]time.Time
	released atomic.Int64
	quiet    bool // no bookkeeping, for benchmarks
	last     event.Decision
	marks    map[uint64]bool // ignore marks by inode
	onAnswer func()          // called first
}

func newKernel(tb testing.TB) *kernel {
	return &kernel{tb: tb, given: map[*event.Question]event.Decision{}, at: map[*event.Question]time.Time{}, marks: map[uint64]bool{}}
}

func (k *kernel) Answer(q *event.Question, d event.Decision) {
	if k.quiet {
		k.last = d
		return
	}
	if k.onAnswer != nil {
		k.onAnswer()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, twice := k.given[q]; twice {
		k.tb.Errorf("question %d answered twice", q.ID)
	}
	k.given[q], k.at[q] = d, time.Now()
	if d.CacheFile {
		k.marks[q.File.Ino] = true
	}
}

func (k *kernel) Release(*event.Question) { k.released.Add(1) }

func (k *kernel) flush() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.marks)
	return nil
}

func (k *kernel) verdict(q *event.Question) (event.Decision, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d, ok := k.given[q]
	return d, ok
}

func (k *kernel) question(ino uint64) *event.Question {
	q := new(event.Question)
	q.Reset()
	q.Kind, q.Source, q.PID = event.Exec, k, 4711
	q.File = event.File{Path: "/bin/true", Dev: 1, Ino: ino, CTime: 1, Size: 42}
	q.Process = &event.Process{Key: event.ProcessKey{PID: 4711, Start: 1}}
	return q
}

// sent is one question that the hub was told to send.
type sent struct {
	id         uint64
	to, shadow event.ProductSet
	deadline   uint64
	critical   bool
}

// products is an electorate whose members do what the test says.
type products struct {
	voters atomic.Pointer[event.Voters]
	within func(*event.Question) event.ProductSet

	full, gone event.ProductSet
	onSend     func(sent)

	mu        sync.Mutex
	sent      []sent
	withdrawn map[uint64]event.ProductSet
	quiet     bool
}

func (p *products) Voters(q *event.Question) (*event.Voters, event.ProductSet) {
	if p.within != nil {
		return p.voters.Load(), p.within(q)
	}
	return p.voters.Load(), ^event.ProductSet(0)
}

func (p *products) Send(_ *event.Voters, q *event.Question, to, shadow event.ProductSet, deadline uint64, critical bool) (full, gone event.ProductSet) {
	s := sent{id: q.ID, to: to, shadow: shadow & to, deadline: deadline, critical: critical}
	if !p.quiet {
		p.mu.Lock()
		p.sent = append(p.sent, s)
		p.mu.Unlock()
	}
	if p.onSend != nil {
		p.onSend(s)
	}
	return p.full & to, p.gone & to
}

func (p *products) Withdraw(_ *event.Voters, id uint64, from event.ProductSet) {
	if p.quiet {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.withdrawn == nil {
		p.withdrawn = map[uint64]event.ProductSet{}
	}
	p.withdrawn[id] |= from
}

func (p *products) asked() []sent {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]sent(nil), p.sent...)
}

// boot is a clock that the kernel's boot clock and synctest's fake one agree on.
func boot() uint64 { return uint64(time.Now().UnixNano()) }

// live returns voters with the given numbers, all live and with the deny grant.
func live(numbers ...int) *event.Voters {
	v := new(event.Voters)
	for _, i := range numbers {
		v.Live |= event.ProductBit(i)
		v.Names[i] = string(rune('a' + i))
	}
	v.MayDeny = v.Live
	return v
}

type bench struct {
	*Engine
	k        *kernel
	p        *products
	mu       sync.Mutex
	outcomes []*event.Event
}

func newBench(tb testing.TB, v *event.Voters, edit func(*Config)) *bench {
	tb.Helper()
	b := &bench{k: newKernel(tb), p: &products{}}
	b.p.voters.Store(v)
	cfg := Config{Electorate: b.p, Now: boot, FlushKernel: b.k.flush, Outcome: func(e *event.Event) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.outcomes = append(b.outcomes, e)
	}}
	if edit != nil {
		edit(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	b.Engine = e
	if v != nil {
		for i, name := range v.Names {
			if name != "" {
				e.Joined(i, name)
			}
		}
	}
	return b
}

func (b *bench) events() []*event.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]*event.Event(nil), b.outcomes...)
}

// balance fails the test unless every question has one verdict, one release, and every product's account adds up.
func (b *bench) balance(tb testing.TB) {
	tb.Helper()
	s := b.Stats()
	var sum uint64
	for _, n := range s.Allowed {
		sum += n
	}
	for _, n := range s.Denied {
		sum += n
	}
	if sum != s.Questions || b.k.released.Load() != int64(s.Questions) {
		tb.Errorf("%d questions, %d verdicts counted, %d released", s.Questions, sum, b.k.released.Load())
	}
	if s.InFlight != 0 {
		tb.Errorf("%d slots still in use", s.InFlight)
	}
	if s.Foreign != 0 {
		tb.Errorf("%d questions answered twice", s.Foreign)
	}
	for _, p := range s.Products {
		out := p.Answered + p.Overridden + p.Missed + p.Unsent + p.Gone + p.Unneeded
		if in := p.Live + p.Shadow; in != out {
			tb.Errorf("product %s: asked %d, accounted %d: %+v", p.Name, in, out, p)
		}
	}
}
