// Package control serves the operator's control API (api/control/v1) on a unix socket in the agent's run directory. It is
// not a way in for products, it decides nothing and keeps no state: every answer comes from the interfaces in backend.go.
//
// Invariant: nothing that a client does, or fails to do, makes the agent wait. Only uid 0 and the agent's own uid are
// served, and streams, connections and request sizes are bounded.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"bailey/agent/event"
	"bailey/api/control/v1/controlv1connect"

	"connectrpc.com/connect"
)

// Config is what a Server needs.
type Config struct {
	Run      string // the agent's run directory; created with mode 0755 when missing
	Agent    Agent
	Products Products
	Cache    Cache
	Brake    Brake
	Door     Door
	Rules    Rules
	Updates  Updates
	// AppendEvent appends the payload (bailey.product.v1.Event) of an event to dst, as products get it.
	AppendEvent func(dst []byte, e *event.Event) []byte
	Log         *slog.Logger
	// Audit, if set, is told of every request that may change something before it is carried out, and what it returns of the
	// outcome before the reply is sent. The request waits for both.
	Audit func(Action) (done func(error))
	// Permit, if set, returns why a method that may change something is not allowed now. Audit is told of those too.
	Permit func(method string) error
	// Metrics, if set, serves GET /metrics.
	Metrics        http.Handler
	MaxStreams     int // live taps and logs at once, default 32
	MaxConnections int // default 128
}

// Server is the control socket and what it serves. Made by New, served by Run.
type Server struct {
	cfg    Config
	socket *socket
	slots  chan struct{} // one per stream
}

// New takes the control socket of the run directory, so that a second agent there fails here, before it touches anything.
// A socket that a dead agent left is replaced; a live agent's is ErrInUse. Run or Close must follow.
func New(cfg Config) (*Server, error) {
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = 32
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = 128
	}
	s, err := listen(cfg.Run)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, socket: s, slots: make(chan struct{}, cfg.MaxStreams)}, nil
}

// Path returns where the socket is.
func (s *Server) Path() string { return s.socket.path }

// Close gives the socket back without serving it. Only for a Server that is not run.
func (s *Server) Close() error { return s.socket.close() }

// shutdownGrace is how long a request that is being answered may take when the agent stops. Streams end at once.
const shutdownGrace = 2 * time.Second

// Run serves until ctx is done, then ends every stream, waits for the requests that are being answered, and removes the
// socket. No goroutine of the server is left when it returns.
func (s *Server) Run(ctx context.Context) error {
	base, endStreams := context.WithCancel(context.WithoutCancel(ctx))
	defer endStreams()
	var busy sync.WaitGroup
	server := &http.Server{
		Handler:           waitable(&busy, s.handler()),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withPeer,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(limit(s.socket.listener, s.cfg.MaxConnections)) }()

	var err error
	select {
	case err = <-served:
		err = fmt.Errorf("serve the control socket %s: %w", s.socket.path, err)
	case <-ctx.Done():
		endStreams()
		err = stop(server)
		if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
			err = errors.Join(err, serr)
		}
	}
	busy.Wait()
	return errors.Join(err, s.socket.close())
}

// stop ends server gracefully, or at the end of the grace period by closing what is still connected.
func stop(server *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	err := server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("stop the control server: %w", err)
	}
	return nil
}

// waitable counts the handlers that run, because http.Server.Close does not wait for them.
func waitable(busy *sync.WaitGroup, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		busy.Add(1)
		defer busy.Done()
		next.ServeHTTP(w, r)
	})
}

// maxRequest bounds one request message, in bytes.
const maxRequest = 1 << 20

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	audit := func(Action) func(error) { return func(error) {} }
	if s.cfg.Audit != nil {
		audit = s.cfg.Audit
	}
	permit := func(string) error { return nil }
	if s.cfg.Permit != nil {
		permit = s.cfg.Permit
	}
	if s.cfg.Metrics != nil {
		mux.Handle("GET /metrics", s.cfg.Metrics)
	}
	mux.Handle(controlv1connect.NewControlServiceHandler(&service{cfg: &s.cfg, slots: s.slots},
		connect.WithInterceptors(&auditor{audit, permit}),
		connect.WithCodec(jsonCodec{}),
		connect.WithReadMaxBytes(maxRequest),
		// Nobody gains by compression on a unix socket, and the live view pays for it with each event.
		connect.WithCompression("gzip", nil, nil),
		connect.WithRecover(s.recovered),
	))
	return onlyOperators(uint32(os.Geteuid()), mux)
}

// recovered turns a panic in one request into that request's error; the agent's other work goes on.
func (s *Server) recovered(_ context.Context, spec connect.Spec, _ http.Header, cause any) error {
	s.cfg.Log.Error("control request panicked", "procedure", spec.Procedure, "err", cause)
	return toConnect(&Fault{Class: Internal, Message: fmt.Sprintf("the agent failed at this request: %v", cause), Hint: "report this with the agent's log"})
}
