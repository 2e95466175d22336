package wire

import (
	"errors"
	"testing"
	"time"

	productv1 "bailey/api/product/v1"

	"golang.org/x/sys/unix"
)

// A released socket's peer learns nothing, its Reader ends although it waits, and whoever else has the socket goes on with
// every frame that the Reader had not taken.
func TestReleaseLeavesTheConversationToAnother(t *testing.T) {
	a, b := pair(t, unix.SOCK_SEQPACKET)
	for round := range 3 {
		other, err := unix.FcntlInt(uintptr(a.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		waiting := make(chan struct{})
		go func() {
			r, err := NewReader(a, false)
			if err != nil {
				ended <- err
				return
			}
			defer r.Close()
			if _, err = r.Next(); err == nil {
				close(waiting)
				_, err = r.Next()
			}
			ended <- err
		}()
		send(t, b, uint64(round))
		<-waiting
		began := time.Now()
		if err := a.Release(); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, ErrReleased) {
			t.Fatalf("the reader ended with %v", err)
		}
		t.Logf("released in %v", time.Since(began))
		if err := a.Send(&productv1.Header{Kind: productv1.FrameEvent}, nil, -1, Try); !errors.Is(err, ErrClosed) {
			t.Errorf("send on a released socket: %v", err)
		}
		send(t, b, 100)
		send(t, b, 101)
		if a, err = NewSocket(other); err != nil {
			t.Fatal(err)
		}
		r := reader(t, a)
		for want := uint64(100); want < 102; want++ {
			if f, err := r.Next(); err != nil || f.ID != want {
				t.Fatalf("round %d: frame %d, %v, want %d", round, f.ID, err, want)
			}
		}
		r.Close()
		send(t, a, 7)
		rb := reader(t, b)
		if f, err := rb.Next(); err != nil || f.ID != 7 {
			t.Fatalf("the peer met %d, %v", f.ID, err)
		}
		rb.Close()
	}
	_ = a.Close()
}

func send(t *testing.T, s *Socket, id uint64) {
	t.Helper()
	if err := s.Send(&productv1.Header{Kind: productv1.FrameAnswer, ID: id}, nil, -1, Try); err != nil {
		t.Fatal(err)
	}
}

// What has been received is not given up: the frames of one datagram all come before the end.
func TestReleaseFinishesTheDatagram(t *testing.T) {
	a, b := pair(t, unix.SOCK_SEQPACKET)
	var packed []byte
	for id := range uint64(3) {
		h := productv1.Header{Kind: productv1.FrameAnswer, ID: id, Length: productv1.HeaderSize}
		var frame [productv1.HeaderSize]byte
		h.Put(frame[:])
		packed = append(packed, frame[:]...)
	}
	if err := b.SendPacked(packed, Try); err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(a, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	released := make(chan error, 1)
	go func() { released <- a.Release() }()
	for !a.released.Load() {
		<-time.After(time.Millisecond)
	}
	for id := uint64(1); id < 3; id++ {
		if f, err := r.Next(); err != nil || f.ID != id {
			t.Fatalf("frame %d, %v, want %d", f.ID, err, id)
		}
	}
	if _, err := r.Next(); !errors.Is(err, ErrReleased) {
		t.Errorf("the reader ended with %v", err)
	}
	r.Close()
	if err := <-released; err != nil {
		t.Error(err)
	}
}

// A stream may be within a frame: nobody else could go on with it.
func TestReleaseClosesAStream(t *testing.T) {
	a, b := pair(t, unix.SOCK_STREAM)
	other, err := unix.FcntlInt(uintptr(a.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	if err := a.Release(); err != nil {
		t.Fatal(err)
	}
	if err := b.Send(&productv1.Header{Kind: productv1.FrameAnswer}, nil, -1, Try); !errors.Is(err, ErrClosed) {
		t.Errorf("the peer's send: %v", err)
	}
}
