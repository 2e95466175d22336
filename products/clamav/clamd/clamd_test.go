package clamd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"bailey/internal/leakcheck"
	"bailey/internal/roottest"
	"bailey/products/clamav/clamd"
	"bailey/products/clamav/clamdtest"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func server(t testing.TB) *clamdtest.Server {
	t.Helper()
	if !clamdtest.Available() {
		roottest.Unavailable(t, "needs clamd (Debian: clamav-daemon)")
	}
	return clamdtest.Start(t)
}

func newClient(t testing.TB, socket string, mode clamd.Mode) *clamd.Client {
	t.Helper()
	c, err := clamd.New(clamd.Config{Socket: socket, Mode: mode})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t testing.TB, content []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestScan(t *testing.T) {
	t.Parallel()
	s := server(t)
	tests := map[string]struct {
		content []byte
		want    string
		stream  error // of INSTREAM only
	}{
		"clean":     {[]byte("nothing here"), "", nil},
		"empty":     {nil, "", nil},
		"eicar":     {clamdtest.EicarContent(), clamdtest.Eicar, nil},
		"marker":    {clamdtest.MarkerContent(), clamdtest.Marker, nil},
		"deep":      {append(bytes.Repeat([]byte("x"), 1<<20), clamdtest.MarkerContent()...), clamdtest.Marker, nil},
		"too_large": {bytes.Repeat([]byte("x"), 5<<20), "", clamd.ErrTooLarge},
	}
	for name, test := range tests {
		for _, mode := range []clamd.Mode{clamd.Auto, clamd.FilDes, clamd.InStream} {
			t.Run(name+"_"+string(mode), func(t *testing.T) {
				t.Parallel()
				c := newClient(t, s.Socket, mode)
				f := open(t, test.content)
				if _, err := f.Seek(3, io.SeekStart); err != nil {
					t.Fatal(err)
				}
				got, err := c.Scan(t.Context(), int(f.Fd()))
				var want error
				if mode == clamd.InStream {
					want = test.stream
				}
				if got != test.want || !errors.Is(err, want) {
					t.Errorf("got %q, %v; want %q, %v", got, err, test.want, want)
				}
				if at, err := f.Seek(0, io.SeekCurrent); err != nil || (at != 3 && mode == clamd.InStream) {
					t.Errorf("the offset moved to %d (%v)", at, err)
				}
			})
		}
	}
}

func TestPingAndVersion(t *testing.T) {
	t.Parallel()
	s := server(t)
	c := newClient(t, s.Socket, clamd.Auto)
	if err := c.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if v, err := c.Version(t.Context()); err != nil || !strings.HasPrefix(v, "ClamAV ") {
		t.Errorf("%q, %v", v, err)
	}
	s.Down()
	if err := c.Ping(t.Context()); !errors.Is(err, clamd.ErrUnavailable) {
		t.Errorf("a dead clamd: %v", err)
	}
}

// TestStopped: a clamd that does not answer holds nobody longer than its context.
func TestStopped(t *testing.T) {
	t.Parallel()
	s := server(t)
	s.Signal(unix.SIGSTOP)
	defer s.Signal(unix.SIGCONT)
	for _, mode := range []clamd.Mode{clamd.FilDes, clamd.InStream} {
		c := newClient(t, s.Socket, mode)
		f := open(t, bytes.Repeat([]byte("x"), 4<<20))
		late := errors.New("late")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, late)
		start := time.Now()
		_, err := c.Scan(ctx, int(f.Fd()))
		cancel()
		if took := time.Since(start); !errors.Is(err, late) || !errors.Is(err, clamd.ErrUnavailable) || took > time.Second {
			t.Errorf("%s: %v after %v", mode, err, took)
		}
	}
}

// TestRefusedDescriptor talks to a daemon that may not receive descriptors, as AppArmor makes of clamd: INSTREAM follows.
func TestRefusedDescriptor(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 64)
			n, _ := io.ReadAtLeast(conn, buf, 9)
			reply := "stream: OK\x00"
			if strings.HasPrefix(string(buf[:n]), "zFILDES") {
				reply = "No file descriptor received. ERROR\x00"
			}
			_, _ = conn.Write([]byte(reply))
			_ = conn.Close()
		}
	})
	defer serving.Wait()
	defer func() { _ = l.Close() }()
	c := newClient(t, socket, clamd.Auto)
	if got, err := c.Scan(t.Context(), int(open(t, []byte("x")).Fd())); got != "" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if !c.Streams() {
		t.Error("the next scan tries the descriptor again")
	}
	if _, err := newClient(t, socket, clamd.FilDes).Scan(t.Context(), int(open(t, []byte("x")).Fd())); !errors.Is(err, clamd.ErrScan) {
		t.Errorf("fildes only: %v", err)
	}
}

func BenchmarkScan(b *testing.B) {
	s := server(b)
	for _, size := range []int{1 << 10, 1 << 20} {
		f := open(b, bytes.Repeat([]byte("y"), size))
		for _, mode := range []clamd.Mode{clamd.FilDes, clamd.InStream} {
			c := newClient(b, s.Socket, mode)
			b.Run(fmt.Sprintf("%s_%dKiB", mode, size>>10), func(b *testing.B) {
				for b.Loop() {
					if _, err := c.Scan(b.Context(), int(f.Fd())); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkSession passes descriptors over one connection, to know what a connection for each scan costs.
func BenchmarkSession(b *testing.B) {
	s := server(b)
	f := open(b, bytes.Repeat([]byte("y"), 1<<10))
	conn, err := net.Dial("unix", s.Socket)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("zIDSESSION\x00")); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 256)
	for b.Loop() {
		if _, err := conn.Write([]byte("zFILDES\x00")); err != nil {
			b.Fatal(err)
		}
		if _, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte{0}, unix.UnixRights(int(f.Fd())), nil); err != nil {
			b.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil || !bytes.HasSuffix(buf[:n], []byte(": OK\x00")) {
			b.Fatalf("%q, %v", buf[:n], err)
		}
	}
}
