package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"bailey/sdk"

	"golang.org/x/sys/unix"
)

// cloud asks a verdict service about every file and waits for its word for as long as it takes: it knows what to do when
// nobody is there, and has never met a service that is there and does not answer. The service is its own, behind a unix
// socket in its state directory or on the loopback of its containment, and fails as the setting cloud says.
type cloud struct {
	how     string
	dial    func(context.Context) (net.Conn, error)
	resolve bool
}

// newCloud starts the service; the setting cloud is one of refuse, blackhole, hang, drip, busy, tls and dns.
func newCloud(set map[string]string) (*cloud, error) {
	how := set["cloud"]
	if how == "" {
		return nil, nil
	}
	path := filepath.Join(os.Getenv("TMPDIR"), "cloud.sock")
	c := &cloud{how: how, resolve: how == "dns"}
	c.dial = func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "unix", path) }
	if how == "refuse" {
		return c, nil // nobody listens
	}
	if how == "blackhole" {
		c.dial = func(context.Context) (net.Conn, error) { return connectAndWait(path) }
		return c, swallow(path)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("start the verdict service: %w", err)
	}
	go serve(l, how)
	return c, nil
}

// swallow makes a service with a full backlog, to which connecting waits for ever: the nearest to packets that nobody
// answers. The connections stay open: they are the backlog.
func swallow(path string) error {
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(l, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = unix.Listen(l, 1)
	}
	if err != nil {
		return fmt.Errorf("start the verdict service: %w", err)
	}
	for {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("fill the backlog: %w", err)
		}
	}
}

// connectAndWait connects as a library does that was given no timeout.
func connectAndWait(path string) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

func serve(l net.Listener, how string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go answerAs(conn, how)
	}
}

// answerAs is one conversation of the service.
func answerAs(conn net.Conn, how string) {
	switch how {
	case "busy":
		_, _ = http.ReadRequest(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3600\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		_ = conn.Close()
	case "drip":
		const reply = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nallow"
		for i := range len(reply) {
			_, _ = io.WriteString(conn, reply[i:i+1])
			time.Sleep(time.Second)
		}
	case "tls":
		// The record says that a kilobyte of ServerHello follows, and nothing does.
		_, _ = conn.Write([]byte{22, 3, 3, 4, 0, 2})
	}
	// Otherwise it accepts, and hangs.
}

// denies asks the service. What it says is allow; the question is only when.
func (c *cloud) denies(ctx context.Context, q *sdk.Question) bool {
	if c == nil {
		return false
	}
	if c.resolve {
		c.lookUp()
	}
	for wait := 10 * time.Millisecond; ; wait *= 2 {
		verdict, err := c.ask(q.GetFile().GetPath())
		switch {
		case err == nil:
			return verdict == "deny"
		case !errors.Is(err, errBusy):
			return false // soft fail: the service is unreachable
		}
		time.Sleep(wait) // as Retry-After would have it, for ever
	}
}

var errBusy = errors.New("the service is busy")

// ask is one request, without a deadline of its own.
func (c *cloud) ask(path string) (string, error) {
	conn, err := c.dial(context.Background())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if c.how == "tls" {
		secure := tls.Client(conn, &tls.Config{ServerName: "cloud"})
		if err := secure.Handshake(); err != nil { // waits for a record that does not come
			return "", err
		}
		conn = secure
	}
	if _, err := fmt.Fprintf(conn, "GET /verdict?path=%s HTTP/1.1\r\nHost: cloud\r\n\r\n", strings.ReplaceAll(path, " ", "%20")); err != nil {
		return "", err
	}
	reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer reply.Body.Close()
	if reply.StatusCode == http.StatusTooManyRequests {
		return "", errBusy
	}
	text, err := io.ReadAll(reply.Body)
	return string(text), err
}

// lookUp asks a name server on the product's own loopback that takes the question and says nothing.
func (c *cloud) lookUp() {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }() // a socket that nobody answered
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
	for range 100 {
		_, _ = r.LookupHost(context.Background(), "verdicts.example.com.")
	}
}
