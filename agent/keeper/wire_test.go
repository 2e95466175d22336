package keeper

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func socketPair(t testing.TB) (a, b int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return pair[0], pair[1]
}

func TestMessagesArriveAsSent(t *testing.T) {
	t.Parallel()
	a, b := socketPair(t)
	defer unix.Close(b)
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, m := range []message{{op: opKeep, name: "answer/x", fd: int(f.Fd())}, {op: opBegin, arg: 1, fd: -1}, {op: opDrop, name: strings.Repeat("n", MaxName), fd: -1}} {
		if err := send(a, m); err != nil {
			t.Fatal(err)
		}
		got, err := receive(b)
		if err != nil {
			t.Fatal(err)
		}
		if (got.fd >= 0) != (m.fd >= 0) {
			t.Errorf("descriptor %d arrived as %d", m.fd, got.fd)
		}
		if got.fd >= 0 {
			_ = unix.Close(got.fd)
		}
		got.fd = m.fd
		if d := cmp.Diff(m, got, cmp.AllowUnexported(message{})); d != "" {
			t.Error(d)
		}
	}
	_ = unix.Close(a)
	if _, err := receive(b); !errors.Is(err, io.EOF) {
		t.Errorf("the end of the other side is %v", err)
	}
}

func TestMalformedMessagesAreErrors(t *testing.T) {
	t.Parallel()
	for _, bad := range [][]byte{{1}, make([]byte, messageSize-1), make([]byte, messageSize+1), append(make([]byte, 16), []byte(strings.Repeat("x", messageSize-16))...)} {
		a, b := socketPair(t)
		if _, err := unix.Write(a, bad); err != nil {
			t.Fatal(err)
		}
		if _, err := receive(b); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
		_ = unix.Close(a)
		_ = unix.Close(b)
	}
}

func FuzzMessage(f *testing.F) {
	var buf [messageSize]byte
	(&message{op: opKeep, arg: 7, name: "file.events"}).encode(&buf)
	f.Add(buf[:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m message
		if m.decode(b) != nil {
			return
		}
		var again [messageSize]byte
		m.encode(&again)
		var n message
		if err := n.decode(again[:]); err != nil || n.name != m.name || n.op != m.op || n.arg != m.arg {
			t.Errorf("%v became %v: %v", m, n, err)
		}
	})
}
