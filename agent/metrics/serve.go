package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Run serves GET /metrics on the loopback address, if there is one, until ctx ends. An address that is taken is retried: it is
// no reason to stop an agent.
func (m *Metrics) Run(ctx context.Context) error {
	if m.cfg.Listen == "" {
		<-ctx.Done()
		return nil
	}
	for said := false; ; said = true {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", m.cfg.Listen)
		if err == nil {
			m.cfg.Log.Info("metrics are served on loopback", "path", "http://"+m.cfg.Listen+"/metrics")
			return m.serve(ctx, l)
		}
		if !said {
			m.cfg.Log.Warn("metrics cannot be served on loopback; it is tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryListen):
		}
	}
}

const retryListen = 5 * time.Second

func (m *Metrics) serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.handler)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(m.cfg.Log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve metrics on %s: %w", m.cfg.Listen, err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := server.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}
