package control

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
)

// peerKey is the context key of the peer's credentials.
type peerKey struct{}

// withPeer keeps the credentials that the kernel recorded when the peer connected.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if limited, ok := c.(*limitedConn); ok {
		if cred, err := credentials(limited.UnixConn); err == nil {
			return context.WithValue(ctx, peerKey{}, cred)
		}
	}
	return ctx
}

func credentials(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reach the peer's descriptor: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, fmt.Errorf("reach the peer's descriptor: %w", err)
	}
	return cred, credErr
}

// onlyOperators serves uid 0 and own. The socket's mode says the same; this holds when somebody changed it.
func onlyOperators(own uint32, next http.Handler) http.Handler {
	writer := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cred, ok := r.Context().Value(peerKey{}).(*unix.Ucred)
		if ok && (cred.Uid == 0 || cred.Uid == own) {
			next.ServeHTTP(w, r)
			return
		}
		message := "the control socket serves root only"
		if ok {
			message = fmt.Sprintf("the control socket serves root only, and this is uid %d", cred.Uid)
		}
		err := connect.NewError(connect.CodePermissionDenied, fmt.Errorf("%s", message))
		if !writer.IsSupported(r) {
			http.Error(w, message, http.StatusForbidden)
			return
		}
		_ = writer.Write(w, r, err)
	})
}

// limit bounds the connections that l hands out: beyond that, callers wait in the socket's backlog and cost no descriptor.
func limit(l *net.UnixListener, n int) net.Listener {
	return &limitedListener{UnixListener: l, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

type limitedListener struct {
	*net.UnixListener
	slots  chan struct{}
	once   sync.Once
	closed chan struct{}
}

// Accept waits for a free slot and then for a connection.
func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.AcceptUnix()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{UnixConn: c, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

// Close stops accepting, also one that waits for a slot.
func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.UnixListener.Close()
}

type limitedConn struct {
	*net.UnixConn
	free func()
}

// Close closes the connection and frees its slot.
func (c *limitedConn) Close() error {
	defer c.free()
	return c.UnixConn.Close()
}
