package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	controlv1 "bailey/api/control/v1"
	"bailey/api/control/v1/client"
	"bailey/api/control/v1/controlv1connect"
	"bailey/internal/leakcheck"

	"connectrpc.com/connect"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// agent answers with its version alone.
type agent struct {
	controlv1connect.UnimplementedControlServiceHandler
	version string
}

func (a agent) Status(context.Context, *connect.Request[controlv1.StatusRequest]) (*connect.Response[controlv1.StatusResponse], error) {
	return connect.NewResponse(&controlv1.StatusResponse{Version: a.version}), nil
}

// serve serves an agent on the socket until it is told to stop, as one does that hands over: what it has at hand it brings to an end.
func serve(t *testing.T, socket, version string) (stop func()) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(controlv1connect.NewControlServiceHandler(agent{version: version}))
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "of "+version) })
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	}()
	return func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
		<-done
	}
}

// TestSuccessorIsReached: one client speaks with the agent that serves, whichever that is, and says so when there is none.
func TestSuccessorIsReached(t *testing.T) {
	dir, err := os.MkdirTemp("", "client") // short: a socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, controlv1.SocketName)
	c, h := client.New(socket), client.HTTP(socket)
	for _, version := range []string{"1", "2"} {
		stop := serve(t, socket, version)
		if r, err := c.Status(t.Context(), connect.NewRequest(&controlv1.StatusRequest{})); err != nil || r.Msg.GetVersion() != version {
			t.Errorf("agent %s: %v, %v", version, r, err)
		}
		r, err := h.Get(controlv1.URL + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r.Body)
		if err != nil || string(text) != "of "+version {
			t.Errorf("agent %s: %q, %v", version, text, err)
		}
		_ = r.Body.Close()
		stop()
	}
	if _, err := c.Status(t.Context(), connect.NewRequest(&controlv1.StatusRequest{})); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("nobody serves: %v", err)
	}
}
