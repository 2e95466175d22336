package link

import (
	"bytes"
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

func TestMisbehaviourEndsTheConversation(t *testing.T) {
	devNull, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer devNull.Close()
	short := frame(productv1.Header{Kind: productv1.FrameAnswer})
	short[0] = 31
	long := frame(productv1.Header{Kind: productv1.FrameAnswer})
	copy(long, []byte{1, 0, 1, 0}) // 65,537
	tests := map[string]struct {
		b     []byte
		fds   []int
		fatal bool // at once on a stream
	}{
		"length_below_header":        {b: short, fatal: true},
		"length_beyond_maximum":      {b: long, fatal: true},
		"kind_of_the_agent":          {b: frame(productv1.Header{Kind: productv1.FrameQuestion})},
		"kind_zero":                  {b: frame(productv1.Header{})},
		"answer_to_nothing":          {b: frame(productv1.Header{Kind: productv1.FrameAnswer, ID: 1000})},
		"descriptor_with_answer":     {b: frame(productv1.Header{Kind: productv1.FrameAnswer}), fds: []int{int(devNull.Fd())}},
		"many_descriptors":           {b: frame(productv1.Header{Kind: productv1.FrameAck}), fds: bytesToFDs(250, int(devNull.Fd()))},
		"finding_that_is_no_message": {b: frame(productv1.Header{Kind: productv1.FrameFinding}, 0xff, 0xff)},
		"finding_too_large":          {b: frame(productv1.Header{Kind: productv1.FrameFinding}, make([]byte, productv1.MaxFinding+1)...)},
		"subscribe_cut_short":        {b: frame(productv1.Header{Kind: productv1.FrameSubscribe}, 0x0a, 0x09)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bothTransports(t, func(t *testing.T, stream bool) {
				var told []error
				c, p := newPair(t, stream, Options{OnFault: func(err error) { told = append(told, err) }})
				_, done := run(c)
				before := openDescriptors(t)
				faults := DefaultFaultLimit
				if stream && tt.fatal {
					faults = 1
				}
				for range faults {
					p.raw(tt.b, tt.fds...)
				}
				select {
				case err := <-done:
					if !errors.Is(err, ErrFaults) {
						t.Errorf("Run: %v", err)
					}
				case <-time.After(5 * time.Second):
					t.Fatal("Run goes on")
				}
				if len(told) != faults {
					t.Errorf("told of %d faults: %v", len(told), told)
				}
				if after := openDescriptors(t); after > before {
					t.Errorf("%d descriptors before, %d after", before, after)
				}
			})
		})
	}
}

func TestOversizedDatagramIsAFault(t *testing.T) {
	c, p := newPair(t, false, Options{})
	_, done := run(c)
	if err := unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20); err != nil {
		t.Fatal(err)
	}
	b := frame(productv1.Header{Kind: productv1.FrameFinding}, make([]byte, productv1.MaxFrame)...)
	for range DefaultFaultLimit {
		p.raw(b)
	}
	if err := <-done; !errors.Is(err, ErrFaults) || !errors.Is(err, wire.ErrOversized) {
		t.Errorf("Run: %v", err)
	}
}

func bytesToFDs(n, fd int) []int {
	fds := make([]int, n)
	for i := range fds {
		fds[i] = fd
	}
	return fds
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func TestFullSocketIsSaidAndNothingIsCut(t *testing.T) {
	bothTransports(t, func(t *testing.T, stream bool) {
		c, p := newPair(t, stream, Options{SendBuffer: 4608})
		payload := bytes.Repeat([]byte("x"), 3000)
		sent := uint64(0)
		var err error
		for err == nil {
			if err = c.SendQuestion(sent+1, sent+1, 0, false, false, payload, -1); err == nil {
				sent++
			}
			if sent > 10_000 {
				t.Fatal("the socket is never full")
			}
		}
		if !errors.Is(err, event.ErrFull) {
			t.Fatalf("full socket: %v", err)
		}
		for i := range sent {
			f := p.next()
			if f.ID != i+1 || !bytes.Equal(f.Payload, payload) {
				t.Fatalf("frame %d is cut or out of order: id %d, %d bytes", i+1, f.ID, len(f.Payload))
			}
		}
		if err := c.SendWithdrawn(9); err != nil {
			t.Errorf("after the product has read: %v", err)
		}
		if f := p.next(); f.Kind != productv1.FrameWithdrawn {
			t.Errorf("kind %d", f.Kind)
		}
	})
}

// A stream takes a part of a frame that is larger than its buffer; the rest must follow without another send.
func TestStreamFinishesAFrameItTookInPart(t *testing.T) {
	c, p := newPair(t, true, Options{SendBuffer: 4608})
	payload := bytes.Repeat([]byte("0123456789abcdef"), 3800)
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for i := range uint64(20) {
		if err := c.SendQuestion(i, i, 0, false, false, payload, int(file.Fd())); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := c.SendWithdrawn(1); !errors.Is(err, event.ErrFull) {
				t.Fatalf("behind half a frame: %v", err)
			}
		}
		f := p.next()
		if f.ID != i || !bytes.Equal(f.Payload, payload) || f.FD < 0 {
			t.Fatalf("frame %d: id %d, %d bytes, descriptor %d", i, f.ID, len(f.Payload), f.FD)
		}
		_ = unix.Close(f.FD)
	}
	if err := c.SendQuestion(99, 99, 0, false, false, payload, -1); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil { // with half a frame pending: the flusher must end
		t.Error(err)
	}
}

func TestEventsArePackedAndTheTooLargeIsAnnounced(t *testing.T) {
	bothTransports(t, func(t *testing.T, stream bool) {
		c, p := newPair(t, stream, Options{})
		var batch []event.Packet
		for i := range uint64(100) {
			batch = append(batch, event.Packet{Seq: i + 1, Payload: bytes.Repeat([]byte{byte(i)}, 1000)})
		}
		batch[50].Payload = make([]byte, productv1.MaxFrame)
		batch[60].Payload = make([]byte, productv1.MaxFrame-productv1.HeaderSize)
		sent, err := c.SendEvents(batch)
		if sent != 100 || err != nil {
			t.Fatalf("sent %d, %v", sent, err)
		}
		for i := range uint64(100) {
			f := p.next()
			kind := productv1.FrameEvent
			if i == 50 {
				kind = productv1.FrameLost
			}
			if f.Kind != kind || f.Seq != i+1 {
				t.Fatalf("frame %d: kind %d seq %d", i, f.Kind, f.Seq)
			}
			if i != 50 && !bytes.Equal(f.Payload, batch[i].Payload) {
				t.Fatalf("event %d differs", i+1)
			}
		}
	})
}

func TestFullSocketSaysHowManyEventsWentOut(t *testing.T) {
	bothTransports(t, func(t *testing.T, stream bool) {
		c, p := newPair(t, stream, Options{SendBuffer: 100 << 10})
		batch := make([]event.Packet, 2000)
		for i := range batch {
			batch[i] = event.Packet{Seq: uint64(i + 1), Payload: make([]byte, 500)}
		}
		sent, err := c.SendEvents(batch)
		if !errors.Is(err, event.ErrFull) || sent == 0 || sent == len(batch) {
			t.Fatalf("sent %d, %v", sent, err)
		}
		if n, err := c.SendEvents(batch[sent:]); n != 0 || !errors.Is(err, event.ErrFull) {
			t.Fatalf("again: sent %d, %v", n, err)
		}
		_ = c.Close()
		for i := range sent {
			if f := p.next(); f.Seq != uint64(i+1) {
				t.Fatalf("event %d is number %d", i+1, f.Seq)
			}
		}
		if f, err := p.r.Next(); err == nil {
			t.Fatalf("event %d was not said to be sent", f.Seq)
		}
	})
}

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

func (s silent) Answer(id uint64, _, _ bool) error  { s.answers <- id; return nil }
func (silent) Extend(uint64, uint64) error          { return nil }
func (silent) Ack(uint64)                           {}
func (silent) Subscribe(*productv1.Subscribe) error { return nil }
func (silent) Finding(*productv1.Finding) error     { return nil }

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
		<-done
	})
}
