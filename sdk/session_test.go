package sdk_test

import (
	"context"
	"io"
	"os"
	"slices"
	"testing"

	productv1 "bailey/api/product/v1"
	"bailey/sdk"

	"golang.org/x/sys/unix"
)

func welcome(protocol uint32, name string) []byte {
	b, err := (&productv1.Welcome{Protocol: protocol, Product: name, EventWindow: 4}).MarshalVT()
	if err != nil {
		panic(err)
	}
	return frame(productv1.Header{Kind: productv1.FrameWelcome}, b)
}

func frame(h productv1.Header, payload []byte) []byte {
	h.Length = uint32(productv1.HeaderSize + len(payload))
	b := make([]byte, productv1.HeaderSize, h.Length)
	h.Put(b)
	return append(b, payload...)
}

// session runs p against an agent that sends these datagrams and goes away.
func session(t testing.TB, p sdk.Product, datagrams ...[]byte) error {
	t.Helper()
	return sessionOn(t, unix.SOCK_SEQPACKET, p, datagrams...)
}

func sessionOn(t testing.TB, typ int, p sdk.Product, datagrams ...[]byte) error {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- sdk.RunSocket(context.Background(), fds[1], p) }()
	for _, d := range datagrams {
		if len(d) > 0 {
			_ = unix.Sendmsg(fds[0], d, unix.UnixRights(int(os.Stdin.Fd())), nil, unix.MSG_NOSIGNAL) // the product may have had enough
		}
	}
	_ = unix.Shutdown(fds[0], unix.SHUT_WR)
	err = <-ended
	_ = unix.Close(fds[0])
	return err
}

// FuzzSession lets an agent say anything, with a descriptor each time. The product must end without a panic and without
// keeping a descriptor; leakcheck and the count below see to that.
func FuzzSession(f *testing.F) {
	q, err := (&productv1.Question{Kind: productv1.Kind_exec, File: &productv1.File{Path: "/x"}}).MarshalVT()
	if err != nil {
		f.Fatal(err)
	}
	e, err := (&productv1.Event{Kind: productv1.Kind_exec, Process: &productv1.Process{Comm: "x"}}).MarshalVT()
	if err != nil {
		f.Fatal(err)
	}
	l, err := (&productv1.Lost{From: 1, To: 9}).MarshalVT()
	if err != nil {
		f.Fatal(err)
	}
	question := frame(productv1.Header{Kind: productv1.FrameQuestion, ID: 1, Seq: 1}, q)
	event := frame(productv1.Header{Kind: productv1.FrameEvent, Seq: 1}, e)
	f.Add(false, question, event)
	f.Add(true, append(question, event...), question[:40])
	f.Add(false, frame(productv1.Header{Kind: productv1.FrameLost, Seq: 9}, l), event)
	f.Add(false, frame(productv1.Header{Kind: productv1.FrameStop, Deadline: ^uint64(0)}, nil), question)
	f.Add(true, frame(productv1.Header{Kind: productv1.FrameWithdrawn, ID: 1}, nil), welcome(1, ""))
	f.Add(false, frame(productv1.Header{Kind: 999}, nil), []byte{1, 2, 3})
	resume := welcome(1, "")
	resume[4] = byte(productv1.FrameResume)
	f.Add(false, append(slices.Clone(question), event...), append(slices.Clone(resume), question...))
	f.Add(true, resume, frame(productv1.Header{Kind: productv1.FrameLost, Seq: 9}, l))
	f.Add(false, frame(productv1.Header{Kind: productv1.FrameResume, ID: 7}, []byte{0xff}), resume)
	f.Fuzz(func(t *testing.T, stream bool, first, second []byte) {
		typ := unix.SOCK_SEQPACKET
		if stream {
			typ = unix.SOCK_STREAM
		}
		before := descriptors(t)
		_ = sessionOn(t, typ, sdk.Product{
			Events: []sdk.Kind{sdk.Exec}, Questions: []sdk.Kind{sdk.Exec}, Stderr: io.Discard, Workers: 2,
			OnEvent:    func(e *sdk.Event) { _ = sdk.Clone(e) },
			OnQuestion: func(_ context.Context, q *sdk.Question) sdk.Answer { _ = q.Deadline(); return sdk.Allow },
		}, welcome(1, ""), first, second)
		if after := descriptors(t); after != before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	})
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}
