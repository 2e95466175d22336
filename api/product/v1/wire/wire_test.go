package wire

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	productv1 "bailey/api/product/v1"
	"bailey/internal/leakcheck"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func pair(t *testing.T, typ int) (a, b *Socket) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range []**Socket{&a, &b} {
		if *s, err = NewSocket(fds[i]); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = (*s).Close() })
	}
	return a, b
}

func reader(t *testing.T, s *Socket) *Reader {
	t.Helper()
	r, err := NewReader(s, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// numbered returns an open file that contains its number.
func numbered(t *testing.T, n int) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := fmt.Fprint(f, n); err != nil {
		t.Fatal(err)
	}
	return f
}

func content(t *testing.T, fd int) string {
	t.Helper()
	b := make([]byte, 16)
	n, err := unix.Pread(fd, b, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
	return string(b[:n])
}

func both(t *testing.T, f func(t *testing.T, typ int)) {
	t.Run("seqpacket", func(t *testing.T) { f(t, unix.SOCK_SEQPACKET) })
	t.Run("stream", func(t *testing.T) { f(t, unix.SOCK_STREAM) })
}

// Frames of all sizes, with and without descriptors, are all in the socket before the first is read: on a stream many of
// them come with one read, and each descriptor must still be its own frame's.
func TestEveryDescriptorStaysWithItsFrame(t *testing.T) {
	both(t, func(t *testing.T, typ int) {
		a, b := pair(t, typ)
		if err := a.SetSendBuffer(4 << 20); err != nil {
			t.Fatal(err)
		}
		const n = 40
		for i := range n {
			fd := -1
			if i%3 != 0 {
				fd = int(numbered(t, i).Fd())
			}
			h := productv1.Header{Kind: productv1.FrameQuestion, ID: uint64(i)}
			if err := a.Send(&h, make([]byte, i*i*40%60_000), fd, Try); err != nil {
				t.Fatal(err)
			}
		}
		r := reader(t, b)
		for i := range n {
			f, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if f.ID != uint64(i) || len(f.Payload) != i*i*40%60_000 {
				t.Fatalf("frame %d: id %d, %d bytes", i, f.ID, len(f.Payload))
			}
			switch {
			case i%3 == 0 && f.FD >= 0:
				t.Fatalf("frame %d has a descriptor: %s", i, content(t, f.FD))
			case i%3 != 0 && f.FD < 0:
				t.Fatalf("frame %d has no descriptor", i)
			case f.FD >= 0:
				if got := content(t, f.FD); got != fmt.Sprint(i) {
					t.Fatalf("frame %d has the descriptor of frame %s", i, got)
				}
			}
		}
	})
}

// A process at its descriptor limit gets the frame without the descriptor, and the next frame has its own again.
func TestDescriptorLimitDoesNotShiftDescriptors(t *testing.T) {
	both(t, func(t *testing.T, typ int) {
		a, b := pair(t, typ)
		r := reader(t, b)
		for i := range 3 {
			h := productv1.Header{Kind: productv1.FrameQuestion, ID: uint64(i)}
			if err := a.Send(&h, []byte("x"), int(numbered(t, i).Fd()), Try); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 3 {
			restore := func() {}
			if i == 1 {
				restore = noDescriptorsLeft(t)
			}
			f, err := r.Next()
			restore()
			if err != nil || f.ID != uint64(i) {
				t.Fatalf("frame %d: id %d, %v", i, f.ID, err)
			}
			if i == 1 {
				if f.FD >= 0 {
					t.Fatal("a descriptor beyond the limit")
				}
				continue
			}
			if got := content(t, f.FD); got != fmt.Sprint(i) {
				t.Fatalf("frame %d has the descriptor of frame %s", i, got)
			}
		}
	})
}

// noDescriptorsLeft lowers the limit to what is open.
func noDescriptorsLeft(t *testing.T) (restore func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	low := old
	low.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSurplusDescriptorsAreAFault(t *testing.T) {
	both(t, func(t *testing.T, typ int) {
		a, b := pair(t, typ)
		r := reader(t, b)
		h := productv1.Header{Kind: productv1.FrameQuestion, Length: productv1.HeaderSize, ID: 1}
		var frame [productv1.HeaderSize]byte
		h.Put(frame[:])
		f := int(numbered(t, 1).Fd())
		if err := unix.Sendmsg(a.fd, frame[:], unix.UnixRights(f, f), nil, 0); err != nil {
			t.Fatal(err)
		}
		var fault *Fault
		if _, err := r.Next(); !errors.As(err, &fault) || !errors.Is(err, ErrDescriptor) || fault.Fatal {
			t.Fatalf("two descriptors: %v", err)
		}
		if got, err := r.Next(); err != nil || got.ID != 1 || got.FD >= 0 {
			t.Errorf("the frame itself: %+v %v", got, err)
		}
	})
}

func TestPeerGone(t *testing.T) {
	both(t, func(t *testing.T, typ int) {
		a, b := pair(t, typ)
		r := reader(t, b)
		h := productv1.Header{Kind: productv1.FrameAck, Seq: 1}
		if err := a.Send(&h, nil, -1, Block); err != nil {
			t.Fatal(err)
		}
		_ = a.Close()
		if f, err := r.Next(); err != nil || f.Seq != 1 {
			t.Errorf("what was sent before: %+v %v", f, err)
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("after it: %v", err)
		}
		if err := b.Send(&h, nil, -1, Block); !errors.Is(err, ErrClosed) {
			t.Errorf("send: %v", err)
		}
	})
}

func TestCloseReadKeepsTheWayOutOpen(t *testing.T) {
	both(t, func(t *testing.T, typ int) {
		a, b := pair(t, typ)
		ra, rb := reader(t, a), reader(t, b)
		done := make(chan error, 1)
		go func() { _, err := ra.Next(); done <- err }()
		a.CloseRead()
		if err := <-done; !errors.Is(err, io.EOF) {
			t.Errorf("read: %v", err)
		}
		h := productv1.Header{Kind: productv1.FrameAnswer, ID: 9}
		if err := a.Send(&h, nil, -1, Block); err != nil {
			t.Fatal(err)
		}
		if f, err := rb.Next(); err != nil || f.ID != 9 {
			t.Errorf("the last answer: %+v %v", f, err)
		}
	})
}

func TestTooLargeIsRefused(t *testing.T) {
	a, _ := pair(t, unix.SOCK_SEQPACKET)
	h := productv1.Header{Kind: productv1.FrameEvent}
	if err := a.Send(&h, make([]byte, productv1.MaxFrame-productv1.HeaderSize+1), -1, Try); !errors.Is(err, ErrTooLarge) {
		t.Errorf("frame: %v", err)
	}
	if err := a.SendPacked(make([]byte, productv1.MaxFrame+1), Try); !errors.Is(err, ErrTooLarge) {
		t.Errorf("packed: %v", err)
	}
}
