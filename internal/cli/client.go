package cli

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"bailey/agent/control"
	"bailey/api/control/v1/controlv1connect"

	"google.golang.org/protobuf/proto"
)

// client returns a client of the chosen agent. It connects at the first call.
func (a *app) client() controlv1connect.ControlServiceClient {
	return controlv1connect.NewControlServiceClient(a.httpClient(), "http://bailey")
}

// httpClient speaks to the chosen agent whatever the address.
func (a *app) httpClient() *http.Client {
	path := a.socket()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}
	return &http.Client{Transport: transport}
}

// printJSON prints m on one line.
func (a *app) printJSON(m proto.Message) error {
	data, err := control.MarshalJSON(m)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(a.Stdout, "%s\n", data); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
