package hub_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bailey/agent/event"
	"bailey/agent/hub"
	"bailey/agent/product/link"
	"bailey/agent/verdict"
	productv1 "bailey/api/product/v1"
	"bailey/internal/boottime"

	"golang.org/x/sys/unix"
)

// The engine is what the hub answers to, the hub the engine's electorate, and the link its connection: no adapters.
var (
	_ hub.Verdicts       = (*verdict.Engine)(nil)
	_ verdict.Electorate = (*hub.Hub)(nil)
	_ hub.Conn           = (*link.Conn)(nil)
	_ hub.Encoder        = (*link.Codec)(nil)
)

// path is hub, engine and transport wired as in the agent, with a kernel that only takes verdicts.
type path struct {
	tb     testing.TB
	hub    *hub.Hub
	engine *verdict.Engine
	file   *os.File

	published int
}

func newPath(tb testing.TB, deadline time.Duration, outcome func(*event.Event)) *path {
	tb.Helper()
	p := &path{tb: tb}
	var err error
	if p.file, err = os.Open(os.DevNull); err != nil {
		tb.Fatal(err)
	}
	if p.hub, err = hub.New(hub.Config{Encoder: &link.Codec{}, Now: boottime.Now}); err != nil {
		tb.Fatal(err)
	}
	p.engine, err = verdict.New(verdict.Config{
		Electorate: p.hub, Now: boottime.Now, Deadlines: map[event.Kind]time.Duration{event.Exec: deadline},
		Outcome: outcome, Wanted: func() bool { return outcome != nil }, OnAuthority: p.hub.SetDegraded,
		Probation: time.Second,
	})
	if err != nil {
		tb.Fatal(err)
	}
	p.hub.Bind(p.engine)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.engine.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
		p.hub.Close()
		_ = p.file.Close()
	})
	return p
}

// handler is what the agent's session is: the client, with the payloads translated.
type handler struct{ *hub.Client }

func (h handler) Subscribe(m *productv1.Subscribe) error {
	var events, questions event.KindSet
	for _, k := range m.GetEvents() {
		events |= event.KindsOf(event.Kind(k))
	}
	for _, k := range m.GetQuestions() {
		questions |= event.KindsOf(event.Kind(k))
	}
	h.Client.Subscribe(hub.Subscription{Events: events, Questions: questions})
	return nil
}

func (h handler) Finding(*productv1.Finding) error               { return nil }
func (handler) InstallRule(uint64, *productv1.RuleInstall) error { return nil }
func (handler) RemoveRule(uint64, *productv1.RuleRemove) error   { return nil }

// start attaches a product that lives in this process behind a real socket: it answers with what reply returns, after the
// delay. It is subscribed when start returns; kill ends it as a crash would.
func (p *path) start(name string, delay time.Duration, reply func(seq uint64) uint16) (kill func()) {
	p.tb.Helper()
	ours, theirs := p.pair()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		answerAll(theirs, delay, reply)
	}()
	stop := p.serve(name, ours)
	kill = sync.OnceFunc(func() {
		_ = unix.Shutdown(theirs, unix.SHUT_RDWR)
		<-ended
		stop()
	})
	p.tb.Cleanup(kill)
	return kill
}

func (p *path) pair() (ours, theirs int) {
	p.tb.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		p.tb.Fatal(err)
	}
	return fds[0], fds[1]
}

// serve attaches and subscribes the product at the other end of fd; the returned function waits until it is detached.
func (p *path) serve(name string, fd int) (wait func()) {
	p.tb.Helper()
	conn, err := link.New(fd, link.Options{})
	if err != nil {
		p.tb.Fatal(err)
	}
	m := hub.Member{
		Name: name, See: event.KindsOf(event.Kinds()...), Decide: event.KindsOf(event.Exec), Deny: true,
	}
	client, err := p.hub.Attach(m, conn)
	if err != nil {
		p.tb.Fatal(err)
	}
	client.Subscribe(hub.Subscription{Events: event.KindsOf(event.Exit), Questions: event.KindsOf(event.Exec)})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = conn.Run(handler{client}) // a killed product is an error here and the test's intention
		p.hub.Detach(client)
		_ = conn.Close()
	}()
	return func() { <-gone }
}

// answerAll is a product: it reads frames on a thread of its own and answers questions until the socket ends.
func answerAll(fd int, delay time.Duration, reply func(seq uint64) uint16) {
	runtime.LockOSThread()
	defer unix.Close(fd)
	buf, out := make([]byte, productv1.MaxFrame), make([]byte, productv1.HeaderSize)
	var late sync.WaitGroup
	defer late.Wait()
	for {
		// Without room for control messages the kernel closes the question's descriptor itself.
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		h, _, rest, err := productv1.Next(buf[:n])
		if err == nil && h.Kind == productv1.FrameEvent {
			acknowledge(fd, h.Seq, rest, out)
		}
		if err != nil || h.Kind != productv1.FrameQuestion {
			continue
		}
		answer := productv1.Header{Length: productv1.HeaderSize, Kind: productv1.FrameAnswer, ID: h.ID, Seq: h.Seq, Flags: reply(h.Seq)}
		if delay == 0 {
			answer.Put(out)
			_, _ = unix.Write(fd, out)
			continue
		}
		late.Go(func() { answerLater(fd, answer, delay) })
	}
}

// acknowledge walks over a datagram of events and acknowledges the last one.
func acknowledge(fd int, seq uint64, rest, out []byte) {
	for len(rest) > 0 {
		h, _, more, err := productv1.Next(rest)
		if err != nil {
			return
		}
		seq, rest = h.Seq, more
	}
	ack := productv1.Header{Length: productv1.HeaderSize, Kind: productv1.FrameAck, Seq: seq}
	ack.Put(out)
	_, _ = unix.Write(fd, out)
}

func answerLater(fd int, answer productv1.Header, delay time.Duration) {
	<-time.After(delay)
	b := make([]byte, productv1.HeaderSize)
	answer.Put(b)
	_, _ = unix.Write(fd, b)
}

// opener is a process in the kernel that waits for its verdict.
type opener struct {
	done    chan event.Decision
	release atomic.Int32
}

func (o *opener) Answer(_ *event.Question, d event.Decision) { o.done <- d }
func (o *opener) Release(*event.Question)                    { o.release.Add(1) }

func (o *opener) question(p *path, ino uint64) *event.Question {
	q := new(event.Question)
	p.fill(q, o, ino)
	return q
}

func (p *path) fill(q *event.Question, source event.Answerer, ino uint64) {
	q.Reset()
	q.Kind, q.Source, q.Time, q.FD = event.Exec, source, boottime.Now(), int(p.file.Fd())
	q.File = event.File{Path: "/usr/bin/true", Dev: 1, Ino: ino, CTime: 1, Size: 1}
	q.Process = sampleProcess
}

var sampleProcess = &event.Process{Key: event.ProcessKey{PID: 4711, Start: 5}, Comm: "sh", Executable: event.File{Path: "/usr/bin/dash"}}

func allow(uint64) uint16 { return 0 }

// TestManyOpenersFourProducts: 64 workers, 10,000 questions; of four products one is always late and one dies again and
// again. Nobody hangs past the deadline, and the counts add up to the last one.
func TestManyOpenersFourProducts(t *testing.T) {
	const workers, questions, deadline = 64, 10_000, 500 * time.Millisecond
	var recorded sync.Map
	var outcomes, twice atomic.Int64
	p := newPath(t, deadline, func(e *event.Event) {
		outcomes.Add(1)
		if _, again := recorded.LoadOrStore(e.Verdict.QuestionID, true); again {
			twice.Add(1)
		}
	})
	p.start("good", 0, func(seq uint64) uint16 { return uint16(seq%2) * productv1.FlagCacheFile })
	p.start("better", 0, func(uint64) uint16 { return productv1.FlagCacheFile })
	p.start("late", deadline+100*time.Millisecond, allow)
	stop := make(chan struct{})
	var mortal sync.WaitGroup
	var deaths atomic.Int64
	mortal.Go(func() {
		for {
			kill := p.start("mortal", 0, allow)
			select {
			case <-stop:
				kill()
				return
			case <-time.After(50 * time.Millisecond):
				kill()
				deaths.Add(1)
			}
		}
	})
	stalled := watchTimers()
	var worst, denied atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < questions; i += workers {
				o := &opener{done: make(chan event.Decision, 2)}
				start := time.Now()
				p.engine.Ask(o.question(p, uint64(i%2000+1)))
				if d := <-o.done; !d.Allow {
					denied.Add(1)
				}
				took := int64(time.Since(start))
				for old := worst.Load(); took > old && !worst.CompareAndSwap(old, took); old = worst.Load() {
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	mortal.Wait()
	waitUntil(t, func() bool { return p.engine.InFlight() == 0 })

	s := p.engine.Stats()
	var sum uint64
	for _, n := range s.Allowed {
		sum += n
	}
	if sum != questions || s.Questions != questions || len(s.Denied) != 0 || denied.Load() != 0 {
		t.Errorf("%d questions, allowed %v, denied %v", s.Questions, s.Allowed, s.Denied)
	}
	asked := s.Allowed[event.ByProducts] + s.Allowed[event.ByDefault]
	if uint64(outcomes.Load()) != asked || twice.Load() != 0 {
		t.Errorf("%d questions were asked, %d outcomes recorded, %d of them twice", asked, outcomes.Load(), twice.Load())
	}
	for _, x := range s.Products {
		if x.Live+x.Shadow != x.Answered+x.Overridden+x.Missed+x.Unsent+x.Gone+x.Unneeded {
			t.Errorf("%s does not add up: %+v", x.Name, x)
		}
	}
	if deaths.Load() == 0 || s.Products[2].Degradations == 0 {
		t.Errorf("%d deaths; late product: %+v", deaths.Load(), s.Products[2])
	}
	// On a starved machine timers and threads are late, and so is whoever waits for them: once for the budget's end, once
	// for the opener to hear of it.
	stall := stalled()
	if d := time.Duration(worst.Load()); d > deadline+2*stall {
		t.Errorf("the slowest verdict took %v, the deadline is %v, timers were up to %v late", d, deadline, stall)
	}
	t.Logf("slowest verdict %v, timers up to %v late, %d deaths, allowed %v", time.Duration(worst.Load()), stall, deaths.Load(), s.Allowed)
}

// watchTimers measures by how much a timer is late at worst until the returned function is called.
func watchTimers() (stop func() time.Duration) {
	const every = 2 * time.Millisecond
	quit, worst := make(chan struct{}), make(chan time.Duration, 1)
	go func() {
		var late time.Duration
		for {
			start := time.Now()
			select {
			case <-quit:
				worst <- late
				return
			case <-time.After(every):
				late = max(late, time.Since(start)-every)
			}
		}
	}()
	return func() time.Duration {
		close(quit)
		return <-worst
	}
}

func waitUntil(tb testing.TB, cond func() bool) {
	tb.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if <-tick.C; time.Now().After(deadline) {
			tb.Fatal("it did not happen within a minute")
		}
	}
}
