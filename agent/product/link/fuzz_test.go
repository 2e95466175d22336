package link

import (
	"os"
	"testing"

	"bailey/internal/leakcheck"

	productv1 "bailey/api/product/v1"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// accepting takes everything that a product says.
type accepting struct{}

func (accepting) Answer(uint64, bool, bool) error      { return nil }
func (accepting) Extend(uint64, uint64) error          { return nil }
func (accepting) Subscribe(*productv1.Subscribe) error { return nil }
func (accepting) Ack(uint64)                           {}
func (accepting) InstallRule(_ uint64, m *productv1.RuleInstall) error {
	_ = m.GetMatch().GetFile()
	return nil
}
func (accepting) RemoveRule(uint64, *productv1.RuleRemove) error { return nil }
func (accepting) Finding(f *productv1.Finding) error {
	new(Codec).AppendEvent(nil, EventFromProto(&productv1.Event{Kind: 33, Finding: f})) // as the hub would pass it on
	return nil
}

// FuzzRun lets a product say anything, with a descriptor each time. Run must end without a panic, and no descriptor may be
// left in the agent.
func FuzzRun(f *testing.F) {
	finding, err := (&productv1.Finding{Rule: "\xff", Fields: map[string]string{"\xfe": "v"}, File: &productv1.File{PathEscaped: `\x`}}).MarshalVT()
	if err != nil {
		f.Fatal(err)
	}
	subscribe, err := (&productv1.Subscribe{Events: []productv1.Kind{1, -1, 99}}).MarshalVT()
	if err != nil {
		f.Fatal(err)
	}
	resumed, err := (&productv1.Subscribe{Resume: true, Resumed: 1, LastSeq: ^uint64(0), LastQuestionSeq: 1}).MarshalVT()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(false, frame(productv1.Header{Kind: productv1.FrameSubscribe}, resumed...), frame(productv1.Header{Kind: productv1.FrameUnsupported}, 8, 9))
	answer := frame(productv1.Header{Kind: productv1.FrameAnswer, ID: 1})
	f.Add(false, answer, frame(productv1.Header{Kind: productv1.FrameFinding}, finding...))
	f.Add(true, frame(productv1.Header{Kind: productv1.FrameSubscribe}, subscribe...), answer[:20])
	f.Add(false, append(answer, answer...), frame(productv1.Header{Kind: 70}, 1, 2, 3))
	f.Add(true, frame(productv1.Header{Kind: productv1.FrameQuestion}), []byte{0xff})
	f.Add(false, []byte{}, []byte{31, 0, 0, 0})
	rule, err := (&productv1.RuleInstall{Id: "a", Action: "exec", Lease: 1, Match: &productv1.RuleMatch{File: "/\xff", PortHigh: 1 << 20}}).MarshalVT()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(true, frame(productv1.Header{Kind: productv1.FrameRuleInstall, ID: 1}, rule...), frame(productv1.Header{Kind: productv1.FrameRuleRemove}, 10, 1, 'a'))
	f.Add(false, frame(productv1.Header{Kind: productv1.FrameRuleInstall}, rule[:len(rule)-1]...), frame(productv1.Header{Kind: productv1.FrameRuleRemove}, 0xff))
	f.Fuzz(func(t *testing.T, stream bool, first, second []byte) {
		if len(first) > 100_000 || len(second) > 100_000 {
			return
		}
		typ := unix.SOCK_SEQPACKET
		if stream {
			typ = unix.SOCK_STREAM
		}
		before := openDescriptors(t)
		fds, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		c, err := New(fds[0], Options{Stream: stream, OnUnsupported: func(productv1.FrameKind) {}})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = c.Run(accepting{}) // whatever it says of this input
		}()
		for _, b := range [][]byte{first, second} {
			if len(b) > 0 {
				// The agent may have had enough already.
				_ = unix.Sendmsg(fds[1], b, unix.UnixRights(int(os.Stdin.Fd())), nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			}
		}
		_ = unix.Shutdown(fds[1], unix.SHUT_WR)
		<-done
		_ = c.Close()
		_ = unix.Close(fds[1])
		if after := openDescriptors(t); after != before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	})
}
