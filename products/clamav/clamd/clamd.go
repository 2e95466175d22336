package clamd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// The classes of failure that a caller tells apart.
var (
	ErrUnavailable = errors.New("clamd cannot be reached")          // no socket, nobody listens, no reply
	ErrTooLarge    = errors.New("the file is too large for clamd")  // beyond StreamMaxLength
	ErrScan        = errors.New("clamd could not scan the file")    // clamd said ERROR
	ErrProtocol    = errors.New("clamd's reply is not understood")  // neither OK, FOUND nor ERROR
	errRefused     = errors.New("clamd may not read the open file") // FILDES only: AppArmor, SELinux
)

// Mode says how a file gets to clamd.
type Mode string

// The modes.
const (
	Auto     Mode = "auto"     // FILDES; INSTREAM from when clamd turns out not to be allowed to read passed files
	FilDes   Mode = "fildes"   // pass the descriptor
	InStream Mode = "instream" // send the content
)

// Config says where clamd is.
type Config struct {
	Socket string // path of its unix socket
	Mode   Mode   // default Auto
}

// Client talks to one clamd. Safe for concurrent use.
type Client struct {
	cfg    Config
	stream atomic.Bool // Auto has changed to INSTREAM
}

// New returns a client; nothing is connected yet.
func New(cfg Config) (*Client, error) {
	if cfg.Mode == "" {
		cfg.Mode = Auto
	}
	if cfg.Socket == "" || (cfg.Mode != Auto && cfg.Mode != FilDes && cfg.Mode != InStream) {
		return nil, fmt.Errorf("clamd socket %q, mode %q: known are auto, fildes and instream", cfg.Socket, cfg.Mode)
	}
	c := &Client{cfg: cfg}
	c.stream.Store(cfg.Mode == InStream)
	return c, nil
}

// Streams reports whether files are streamed now.
func (c *Client) Streams() bool { return c.stream.Load() }

// Ping asks whether clamd answers.
func (c *Client) Ping(ctx context.Context) error {
	reply, err := c.command(ctx, "PING")
	if err != nil {
		return err
	}
	if reply != "PONG" {
		return fmt.Errorf("%w: %q to PING", ErrProtocol, reply)
	}
	return nil
}

// Version returns clamd's version with that of the official signatures it has loaded: "ClamAV 1.4.6/27000/date".
func (c *Client) Version(ctx context.Context) (string, error) {
	reply, err := c.command(ctx, "VERSION")
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(reply, "ClamAV ") {
		return "", fmt.Errorf("%w: %q to VERSION", ErrProtocol, reply)
	}
	return reply, nil
}

func (c *Client) command(ctx context.Context, name string) (string, error) {
	x, err := c.dial(ctx)
	if err != nil {
		return "", err
	}
	defer x.close()
	if _, err := x.conn.Write([]byte("z" + name + "\x00")); err != nil {
		return "", x.failed("send "+name, err)
	}
	return x.reply()
}

// Scan has clamd look at the file behind fd, from its start. It returns the name of the signature that was found, empty if
// none was. Streaming leaves the descriptor's offset alone; a clamd that is passed the descriptor rewinds it.
func (c *Client) Scan(ctx context.Context, fd int) (string, error) {
	if c.stream.Load() {
		return c.scan(ctx, fd, (*exchange).stream)
	}
	signature, err := c.scan(ctx, fd, (*exchange).pass)
	if errors.Is(err, errRefused) && c.cfg.Mode == Auto {
		signature, err = c.scan(ctx, fd, (*exchange).stream)
		if err == nil {
			c.stream.Store(true)
		}
	}
	return signature, err
}

func (c *Client) scan(ctx context.Context, fd int, send func(*exchange, int) error) (string, error) {
	x, err := c.dial(ctx)
	if err != nil {
		return "", err
	}
	defer x.close()
	sendErr := send(x, fd)
	// clamd may say why it hung up.
	reply, err := x.reply()
	if err != nil {
		return "", errors.Join(sendErr, err)
	}
	return parseReply(reply)
}

// exchange is one connection.
type exchange struct {
	ctx    context.Context
	conn   *net.UnixConn
	cancel func() bool
}

func (c *Client) dial(ctx context.Context) (*exchange, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.cfg.Socket)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	x := &exchange{ctx: ctx, conn: conn.(*net.UnixConn)}
	x.cancel = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // it fails when conn is closed already
	return x, nil
}

func (x *exchange) close() {
	x.cancel()
	_ = x.conn.Close() // clamd has said all that is wanted
}

// failed says that an error of the connection is clamd's absence, and names the context's cause if that ended it.
func (x *exchange) failed(what string, err error) error {
	if x.ctx.Err() != nil {
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, what, context.Cause(x.ctx))
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, what, err)
}

// maxReply bounds a reply: a signature's name and some words.
const maxReply = 4096

// reply reads up to the NUL that ends a reply.
func (x *exchange) reply() (string, error) {
	b, err := bufio.NewReaderSize(io.LimitReader(x.conn, maxReply), maxReply).ReadSlice(0)
	if err != nil {
		return "", x.failed("read reply", err)
	}
	return strings.TrimSpace(string(b[:len(b)-1])), nil
}

// pass sends FILDES and the descriptor.
func (x *exchange) pass(fd int) error {
	if _, err := x.conn.Write([]byte("zFILDES\x00")); err != nil {
		return x.failed("send FILDES", err)
	}
	if _, _, err := x.conn.WriteMsgUnix([]byte{0}, unix.UnixRights(fd), nil); err != nil {
		return x.failed("pass descriptor", err)
	}
	return nil
}

const chunk = 64 << 10

var chunks = sync.Pool{New: func() any { return new([4 + chunk]byte) }}

// stream sends INSTREAM and the content: chunks with their length before them, and an empty one.
func (x *exchange) stream(fd int) error {
	if _, err := x.conn.Write([]byte("zINSTREAM\x00")); err != nil {
		return x.failed("send INSTREAM", err)
	}
	buf := chunks.Get().(*[4 + chunk]byte)
	defer chunks.Put(buf)
	for at := int64(0); ; {
		n, err := unix.Pread(fd, buf[4:], at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the file: %w", err)
		}
		binary.BigEndian.PutUint32(buf[:4], uint32(n))
		if _, err := x.conn.Write(buf[:4+n]); err != nil {
			return x.failed("stream file", err)
		}
		if n == 0 {
			return nil
		}
		at += int64(n)
	}
}

// parseReply reads "fd[10]: OK", "stream: NAME FOUND" or "… ERROR".
func parseReply(reply string) (string, error) {
	_, said, prefixed := strings.Cut(reply, ": ")
	if !prefixed {
		said = reply
	}
	switch {
	case prefixed && said == "OK":
		return "", nil
	case prefixed && strings.HasSuffix(said, " FOUND"):
		if name := strings.TrimSuffix(said, " FOUND"); name != "" {
			return name, nil
		}
	case strings.Contains(reply, "size limit exceeded"):
		return "", fmt.Errorf("%w: %s", ErrTooLarge, reply)
	case strings.Contains(reply, "No file descriptor received") || strings.Contains(reply, "Permission denied") || strings.Contains(reply, "Access denied"):
		return "", fmt.Errorf("%w: %w: %s", ErrScan, errRefused, reply)
	case strings.HasSuffix(reply, "ERROR"):
		return "", fmt.Errorf("%w: %s", ErrScan, reply)
	case strings.Contains(reply, "TIMED OUT"):
		return "", fmt.Errorf("%w: %s", ErrUnavailable, reply)
	}
	return "", fmt.Errorf("%w: %.200q", ErrProtocol, reply)
}
