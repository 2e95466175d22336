package metrics

import (
	"errors"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config is what Metrics need. Source and Log have no default.
type Config struct {
	Source Source
	Keeper Keeper // nil: there is none, and its counts are zero
	Brakes Brakes // nil: no product is ever braked
	Log    *slog.Logger
	Listen string // address and port to serve on as well, which the configuration has checked; empty: only Handler serves
}

// Metrics serves what the agent counted. Safe for concurrent use.
type Metrics struct {
	cfg     Config
	handler http.Handler
}

// New returns metrics in a registry of their own.
func New(cfg Config) (*Metrics, error) {
	if cfg.Source == nil || cfg.Log == nil {
		return nil, errors.New("make metrics: Source and Log are required")
	}
	registry := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		newCollector(cfg), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return &Metrics{cfg: cfg, handler: promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn), MaxRequestsInFlight: 4, DisableCompression: true,
		ErrorHandling: promhttp.ContinueOnError,
	})}, nil
}

// Handler answers a scrape.
func (m *Metrics) Handler() http.Handler { return m.handler }
