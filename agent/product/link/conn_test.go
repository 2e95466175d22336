package link

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"bailey/agent/event"
	productv1 "bailey/api/product/v1"
	"bailey/api/product/v1/wire"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// peer is a product made of bare frames, so that it can misbehave.
type peer struct {
	t    *testing.T
	fd   int // for raw sends
	sock *wire.Socket
	r    *wire.Reader
}

func (p *peer) next() wire.Frame {
	p.t.Helper()
	f, err := p.r.Next()
	if err != nil {
		p.t.Fatalf("next frame: %v", err)
	}
	return f
}

func (p *peer) raw(b []byte, fds ...int) {
	p.t.Helper()
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(p.fd, b, oob, nil, unix.MSG_NOSIGNAL); err != nil && !errors.Is(err, unix.EPIPE) {
		p.t.Fatalf("send: %v", err)
	}
}

// heard records what the handler is told.
type heard struct {
	mu   sync.Mutex
	said []string
	wake chan struct{}
}

func (h *heard) add(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said = append(h.said, fmt.Sprintf(format, args...))
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// wait returns what was heard once there are n things.
func (h *heard) wait(t *testing.T, n int) []string {
	t.Helper()
	timeout := time.After(5 * time.Second)
	for {
		h.mu.Lock()
		said := append([]string(nil), h.said...)
		h.mu.Unlock()
		if len(said) >= n {
			return said
		}
		select {
		case <-h.wake:
		case <-timeout:
			t.Fatalf("heard %q, expected %d", said, n)
		}
	}
}

func (h *heard) Answer(id uint64, deny, cacheFile bool) error {
	h.add("answer %d deny=%t cache=%t", id, deny, cacheFile)
	if id >= 1000 {
		return fmt.Errorf("question %d was not asked", id)
	}
	return nil
}
func (h *heard) Extend(id, deadline uint64) error { h.add("extend %d %d", id, deadline); return nil }
func (h *heard) Ack(seq uint64)                   { h.add("ack %d", seq) }
func (h *heard) Subscribe(m *productv1.Subscribe) error {
	h.add("subscribe %v %v", m.GetEvents(), m.GetQuestions())
	return nil
}
func (h *heard) Finding(m *productv1.Finding) error { h.add("finding %s", m.GetRule()); return nil }
func (h *heard) InstallRule(request uint64, m *productv1.RuleInstall) error {
	h.add("rule %d %s", request, m.GetId())
	return nil
}
func (h *heard) RemoveRule(request uint64, m *productv1.RuleRemove) error {
	h.add("no rule %d %s", request, m.GetId())
	return nil
}

func newPair(t *testing.T, stream bool, o Options) (*Conn, *peer) {
	t.Helper()
	typ := unix.SOCK_SEQPACKET
	if stream {
		typ = unix.SOCK_STREAM
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	o.Stream = stream
	c, err := New(fds[0], o)
	if err != nil {
		t.Fatal(err)
	}
	sock, err := wire.NewSocket(fds[1])
	if err != nil {
		t.Fatal(err)
	}
	r, err := wire.NewReader(sock, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); _ = sock.Close(); _ = c.Close() })
	return c, &peer{t: t, fd: fds[1], sock: sock, r: r}
}

// run runs c and returns what it heard and where Run's result will be.
func run(c *Conn) (*heard, chan error) {
	h := &heard{wake: make(chan struct{}, 1)}
	done := make(chan error, 1)
	go func() { done <- c.Run(h) }()
	return h, done
}

// bothTransports is the contract suite: what must hold must hold on both.
func bothTransports(t *testing.T, f func(t *testing.T, stream bool)) {
	for name, stream := range map[string]bool{"seqpacket": false, "stream": true} {
		t.Run(name, func(t *testing.T) { f(t, stream) })
	}
}

func TestWhatTheAgentSends(t *testing.T) {
	bothTransports(t, func(t *testing.T, stream bool) {
		c, p := newPair(t, stream, Options{})
		file, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.WriteString("content"); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{
			c.SendWelcome(&productv1.Welcome{Protocol: 1, Product: "x"}),
			c.SendSubscribed(&productv1.Subscribed{Refused: []string{"no"}}),
			c.SendQuestion(11, 1, 500, true, false, []byte("one"), int(file.Fd())),
			c.SendWithdrawn(11),
			c.SendQuestion(12, 2, 600, false, true, []byte("two"), -1),
			c.SendState("degraded", "late"),
			c.SendLost(true, 3, 4, "full"),
			c.SendStop(77),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		var got []productv1.Header
		for range 8 {
			f := p.next()
			f.Length = 0
			if f.FD >= 0 {
				b := make([]byte, 16)
				n, err := unix.Pread(f.FD, b, 0)
				if err != nil || string(b[:n]) != "content" || f.ID != 11 {
					t.Errorf("question %d: descriptor reads %q, %v", f.ID, b[:n], err)
				}
				_ = unix.Close(f.FD)
			} else if f.ID == 11 && f.Kind == productv1.FrameQuestion {
				t.Error("the descriptor is missing")
			}
			got = append(got, f.Header)
		}
		want := []productv1.Header{
			{Kind: productv1.FrameWelcome},
			{Kind: productv1.FrameSubscribed},
			{Kind: productv1.FrameQuestion, ID: 11, Seq: 1, Deadline: 500, Flags: productv1.FlagShadow},
			{Kind: productv1.FrameWithdrawn, ID: 11},
			{Kind: productv1.FrameQuestion, ID: 12, Seq: 2, Deadline: 600, Flags: productv1.FlagCritical},
			{Kind: productv1.FrameState},
			{Kind: productv1.FrameLost, Seq: 4},
			{Kind: productv1.FrameStop, Deadline: 77},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestWhatTheProductSends(t *testing.T) {
	bothTransports(t, func(t *testing.T, stream bool) {
		c, p := newPair(t, stream, Options{})
		h, done := run(c)
		send := func(hd productv1.Header, m interface{ MarshalVT() ([]byte, error) }) {
			t.Helper()
			var b []byte
			if m != nil {
				b, _ = m.MarshalVT()
			}
			if err := p.sock.Send(&hd, b, -1, wire.Block); err != nil {
				t.Fatal(err)
			}
		}
		send(productv1.Header{Kind: productv1.FrameSubscribe}, &productv1.Subscribe{Events: []productv1.Kind{1}, Questions: []productv1.Kind{4}})
		send(productv1.Header{Kind: productv1.FrameAnswer, ID: 5, Flags: productv1.FlagDeny}, nil)
		send(productv1.Header{Kind: productv1.FrameAnswer, ID: 6, Flags: productv1.FlagCacheFile}, nil)
		send(productv1.Header{Kind: productv1.FrameExtend, ID: 7, Deadline: 9}, nil)
		send(productv1.Header{Kind: productv1.FrameFinding}, &productv1.Finding{Rule: "r"})
		send(productv1.Header{Kind: productv1.FrameAck, Seq: 3}, nil)
		send(productv1.Header{Kind: 99}, nil)
		if f := p.next(); f.Kind != productv1.FrameUnsupported {
			t.Errorf("reply to an unknown kind is of kind %d", f.Kind)
		}
		want := []string{
			"subscribe [exec] [open]", "answer 5 deny=true cache=false", "answer 6 deny=false cache=true", "extend 7 9",
			"finding r", "ack 3",
		}
		if diff := cmp.Diff(want, h.wait(t, len(want))); diff != "" {
			t.Error(diff)
		}
		if n, err := c.Faults(); n != 0 {
			t.Errorf("%d faults, the last %v", n, err)
		}
		_ = p.sock.Close()
		if err := <-done; err != nil {
			t.Errorf("end of the product: %v", err)
		}
	})
}

func frame(h productv1.Header, payload ...byte) []byte {
	h.Length = uint32(productv1.HeaderSize + len(payload))
	b := make([]byte, productv1.HeaderSize, h.Length)
	h.Put(b)
	return append(b, payload...)
}

// A stream takes a part of a frame that is larger than its buffer; the rest must follow without another send.
func TestCloseEndsRunAndSends(t *testing.T) {
	bothTransports(t, func(t *testing.T, stream bool) {
		c, _ := newPair(t, stream, Options{})
		_, done := run(c)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := c.SendWithdrawn(1); !errors.Is(err, ErrClosed) {
			t.Errorf("send: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
		if err := c.Run(nil); err != nil {
			t.Errorf("Run after Close: %v", err)
		}
	})
}

func TestNewRefusesWhatIsNotTheSocketExpected(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	if _, err := New(fds[0], Options{}); err == nil {
		t.Error("a stream was taken for seqpacket")
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if _, err := New(int(null.Fd()), Options{}); err == nil {
		t.Error("a file was taken for a socket")
	}
}

// silent accepts everything and keeps nothing.
type silent struct{ answers chan uint64 }

func (s silent) Answer(id uint64, _, _ bool) error              { s.answers <- id; return nil }
func (silent) Extend(uint64, uint64) error                      { return nil }
func (silent) Ack(uint64)                                       {}
func (silent) Subscribe(*productv1.Subscribe) error             { return nil }
func (silent) Finding(*productv1.Finding) error                 { return nil }
func (silent) InstallRule(uint64, *productv1.RuleInstall) error { return nil }
func (silent) RemoveRule(uint64, *productv1.RuleRemove) error   { return nil }

func TestTheAgentsSideDoesNotAllocate(t *testing.T) {
	bothTransports(t, func(t *testing.T, stream bool) {
		c, p := newPair(t, stream, Options{})
		h := silent{answers: make(chan uint64, 1)}
		done := make(chan error, 1)
		go func() { done <- c.Run(h) }()
		file, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		payload := make([]byte, 600)
		batch := []event.Packet{{Seq: 1, Payload: payload}, {Seq: 2, Payload: payload}}
		id := uint64(0)
		n := testing.AllocsPerRun(500, func() {
			id++
			if err := c.SendQuestion(id, id, 5, false, false, payload, int(file.Fd())); err != nil {
				t.Fatal(err)
			}
			if _, err := c.SendEvents(batch); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if f := p.next(); f.FD >= 0 {
					_ = unix.Close(f.FD)
				}
			}
			a := productv1.Header{Kind: productv1.FrameAnswer, ID: id}
			if err := p.sock.Send(&a, nil, -1, wire.Block); err != nil {
				t.Fatal(err)
			}
			<-h.answers
		})
		if n != 0 {
			t.Errorf("%v allocations for a question, two events and an answer", n)
		}
		_ = c.Close()
		if err := <-done; err != nil {
			t.Errorf("run ended with %v", err)
		}
	})
}
