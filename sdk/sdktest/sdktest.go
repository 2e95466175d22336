// Package sdktest runs a product against an agent in memory, over a real socketpair and the real protocol, so that
// authors test what they ship: frames, descriptors, deadlines, acknowledgements. It needs no root and no kernel support.
// It grants everything, decides nothing and merges nothing: it is not the agent's verdict engine.
//
//	a := sdktest.New(t, product)
//	if got := a.Ask(sdk.Exec, nil, "/bin/true"); got != sdk.Allow {
//		t.Errorf("true: %v", got)
//	}
//
// Invariant: every question asked of the product is answered once or the test fails, and the product has ended when the
// test has.
package sdktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	productv1 "bailey/api/product/v1"
	"bailey/api/product/v1/wire"
	"bailey/sdk"

	"golang.org/x/sys/unix"
)

// Options change how the agent in memory treats the product. The zero value is what New uses.
type Options struct {
	Stream    bool              // a byte stream instead of seqpacket
	Authority string            // default live
	Settings  map[string]string // as an operator would have set them
	Grants    *sdk.Grants       // default: whatever the product subscribes to, deny, deny_critical
	Window    uint32            // events in flight; default 64
	Timeout   time.Duration     // how long Ask and Emit wait before the test fails; default 10 s
}

// Agent is the agent in memory. Safe for concurrent use.
type Agent struct {
	t       testing.TB
	name    string
	o       Options
	sock    *wire.Socket
	cancel  context.CancelFunc
	done    chan struct{} // the product has ended
	err     error         // what its Run returned; read after done
	readEnd chan struct{}

	mu          sync.Mutex
	changed     chan struct{} // closed and replaced when something below changes
	subscribed  *productv1.Subscribe
	nextID      uint64
	questionSeq uint64
	resumes     uint64 // how often another agent took over
	earlier     uint64 // ids up to it were asked by an agent that is gone
	resumed     uint64 // the last Resume that the product replied to
	eventSeq    uint64
	unacked     []uint64 // events sent and not acknowledged
	acked       uint64
	waiting     map[uint64]chan reply
	extended    map[uint64]time.Duration
	findings    []sdk.Finding
	faults      []string
	unsupported []uint32
	rules       map[string]*productv1.RuleInstall
	ended       bool
}

type reply struct {
	answer sdk.Answer
	ok     bool
}

// New starts the product and returns when it has subscribed. It is stopped when t ends; t fails if it ended by itself
// with an error.
func New(t testing.TB, p sdk.Product) *Agent {
	t.Helper()
	return NewWith(t, p, Options{})
}

// NewWith is New with options.
func NewWith(t testing.TB, p sdk.Product, o Options) *Agent {
	t.Helper()
	return start(t, o, func(ctx context.Context, fd int) error { return sdk.RunSocket(ctx, fd, p) }, p.Name)
}

// NewProcess lets run start the product, e.g. as a process in any language, with fd as its socket. run returns when the
// product has ended; it takes fd over.
func NewProcess(t testing.TB, name string, o Options, run func(ctx context.Context, fd int) error) *Agent {
	t.Helper()
	return start(t, o, run, name)
}

func start(t testing.TB, o Options, run func(context.Context, int) error, name string) *Agent {
	t.Helper()
	if o.Authority == "" {
		o.Authority = "live"
	}
	if o.Window == 0 {
		o.Window = 64
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Grants == nil {
		o.Grants = &sdk.Grants{Deny: true, DenyCritical: true, OpenScope: []string{"/"}}
	}
	typ := unix.SOCK_SEQPACKET
	if o.Stream {
		typ = unix.SOCK_STREAM
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("make a socketpair: %v", err)
	}
	sock, err := wire.NewSocket(pair[0])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &Agent{
		t: t, name: name, o: o, sock: sock, cancel: cancel, done: make(chan struct{}), readEnd: make(chan struct{}),
		changed: make(chan struct{}), waiting: make(map[uint64]chan reply), rules: make(map[string]*productv1.RuleInstall), extended: make(map[uint64]time.Duration),
	}
	go a.read()
	go func() {
		defer close(a.done)
		a.err = run(ctx, pair[1])
	}()
	t.Cleanup(a.close)
	a.send(productv1.Header{Kind: productv1.FrameWelcome}, a.welcomeFor(name), -1)
	a.wait("the product's first Subscribe", func() bool { return a.subscribed != nil })
	return a
}

func (a *Agent) welcomeFor(name string) *productv1.Welcome {
	return &productv1.Welcome{
		Protocol: productv1.Protocol, AgentVersion: "sdktest", Product: name, Release: "test", Authority: a.o.Authority,
		BootId: "00000000-0000-0000-0000-000000000000", Grants: a.o.Grants, Settings: a.o.Settings,
		Deadlines:   map[string]uint64{"exec": uint64(a.o.Timeout), "open": uint64(a.o.Timeout)},
		EventWindow: a.o.Window,
	}
}

// close stops the product in order and checks that it ended well.
func (a *Agent) close() {
	if err := a.Stop(); err != nil && !errors.Is(err, context.Canceled) {
		a.t.Errorf("the product ended with: %v", err)
	}
	a.cancel()
	_ = a.sock.Close()
	<-a.readEnd
	for _, f := range a.Faults() {
		a.t.Errorf("the product broke the protocol: %s", f)
	}
}

// Stop tells the product to stop and returns what its Run returned; a second call returns the same.
func (a *Agent) Stop() error {
	a.t.Helper()
	h := productv1.Header{Kind: productv1.FrameStop, Deadline: boottime() + uint64(a.o.Timeout)}
	_ = a.sock.Send(&h, nil, -1, wire.Block) // fails when the product has ended, which is what is wanted
	select {
	case <-a.done:
		return a.err
	case <-time.After(a.o.Timeout):
	}
	a.cancel()
	_ = a.sock.Close()
	return fmt.Errorf("no end %v after Stop", a.o.Timeout)
}

// Done is closed when the product's Run has returned.
func (a *Agent) Done() <-chan struct{} { return a.done }

// read handles what the product sends.
func (a *Agent) read() {
	defer close(a.readEnd)
	r, err := wire.NewReader(a.sock, false)
	if err != nil {
		return
	}
	defer r.Close()
	for {
		f, err := r.Next()
		var fault *wire.Fault
		switch {
		case errors.As(err, &fault) && !fault.Fatal:
			a.update(func() { a.faults = append(a.faults, err.Error()) })
		case err != nil:
			a.update(func() {
				a.ended = true
				if !errors.Is(err, io.EOF) {
					a.faults = append(a.faults, err.Error())
				}
				a.abandon()
			})
			return
		default:
			a.update(func() {
				if err := a.frame(&f); err != nil {
					a.faults = append(a.faults, err.Error())
				}
			})
		}
	}
}

// abandon ends the waiting for every answer; called under the lock.
func (a *Agent) abandon() {
	for id, c := range a.waiting {
		delete(a.waiting, id)
		c <- reply{}
	}
}

// update changes the state under the lock and wakes who waits for it.
func (a *Agent) update(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
	close(a.changed)
	a.changed = make(chan struct{})
}

// wait returns when cond, called under the lock, holds; it fails the test after the timeout or when the product ends.
func (a *Agent) wait(what string, cond func() bool) {
	a.t.Helper()
	timeout := time.NewTimer(a.o.Timeout)
	defer timeout.Stop()
	for {
		a.mu.Lock()
		ok, ended, changed := cond(), a.ended, a.changed
		a.mu.Unlock()
		if ok {
			return
		}
		if ended {
			<-a.done
			a.t.Fatalf("the product ended before %s: %v", what, a.err)
		}
		select {
		case <-changed:
		case <-timeout.C:
			a.t.Fatalf("no %s within %v", what, a.o.Timeout)
		}
	}
}

// frame handles one frame of the product; called under the lock.
func (a *Agent) frame(f *wire.Frame) error {
	switch f.Kind {
	case productv1.FrameSubscribe:
		m := new(productv1.Subscribe)
		if err := m.UnmarshalVT(f.Payload); err != nil {
			return fmt.Errorf("decode subscribe: %w", err)
		}
		a.subscribed = m
		if err := a.continued(m); err != nil {
			return err
		}
		b, err := (&productv1.Subscribed{Events: m.GetEvents(), Questions: m.GetQuestions()}).MarshalVT()
		if err != nil {
			return fmt.Errorf("encode subscribed: %w", err)
		}
		return a.sock.Send(&productv1.Header{Kind: productv1.FrameSubscribed}, b, -1, wire.Block)
	case productv1.FrameAnswer:
		c, ok := a.waiting[f.ID]
		if !ok && f.ID <= a.earlier {
			return nil // it crossed Resume
		}
		if !ok {
			return fmt.Errorf("answer to question %d, which was not asked or is answered", f.ID)
		}
		delete(a.waiting, f.ID)
		c <- reply{answer: answerOf(f.Flags), ok: true}
	case productv1.FrameExtend:
		a.extended[f.ID] = time.Duration(f.Deadline - boottime())
	case productv1.FrameAck:
		return a.ack(f.Seq)
	case productv1.FrameFinding:
		return a.finding(f.Payload)
	case productv1.FrameRuleInstall, productv1.FrameRuleRemove:
		return a.rule(f)
	case productv1.FrameUnsupported:
		m := new(productv1.Unsupported)
		if err := m.UnmarshalVT(f.Payload); err != nil {
			return fmt.Errorf("decode unsupported: %w", err)
		}
		a.unsupported = append(a.unsupported, m.GetFrameKind())
	default:
		return fmt.Errorf("frame of kind %d", f.Kind)
	}
	return nil
}

// ack takes an Ack: of an event that was sent as an Event, not earlier than the last one.
func (a *Agent) ack(seq uint64) error {
	n, sent := slices.BinarySearch(a.unacked, seq)
	if !sent && seq != a.acked {
		return fmt.Errorf("ack of event %d, which was not sent or was acknowledged before", seq)
	}
	if sent {
		a.unacked, a.acked = a.unacked[n+1:], seq
	}
	return nil
}

func (a *Agent) finding(payload []byte) error {
	m := new(productv1.Finding)
	if err := m.UnmarshalVT(payload); err != nil {
		return fmt.Errorf("decode finding: %w", err)
	}
	a.findings = append(a.findings, sdk.Finding{
		Rule: m.GetRule(), Title: m.GetTitle(), Severity: m.GetSeverity(), QuestionID: m.GetQuestionId(),
		Action: m.GetAction(), File: m.GetFile(), Target: m.GetTarget(), Fields: m.GetFields(),
	})
	return nil
}

func answerOf(flags uint16) sdk.Answer {
	answer := sdk.Allow
	if flags&productv1.FlagDeny != 0 {
		answer = sdk.Deny
	}
	if flags&productv1.FlagCacheFile != 0 {
		answer = answer.CacheFile()
	}
	return answer
}

func boottime() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("sdktest: the kernel has no CLOCK_BOOTTIME: " + err.Error())
	}
	return uint64(ts.Nano())
}

// fileOf fills a File from the open file, the way the agent does.
func fileOf(f *os.File) (*sdk.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	return &sdk.File{
		Path: f.Name(), Dev: uint64(st.Dev), Ino: st.Ino, Ctime: st.Ctim.Nano(), Mtime: st.Mtim.Nano(),
		Size: st.Size, Mode: st.Mode, Uid: st.Uid, Gid: st.Gid,
	}, nil
}
