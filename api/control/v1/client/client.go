// Package client speaks with an agent through its control socket, as root on the agent's own machine.
//
// Invariant: every request has a connection of its own. There is nothing to close, and the request after an agent has handed over to its successor
// reaches the successor.
package client

import (
	"context"
	"net"
	"net/http"

	controlv1 "bailey/api/control/v1"
	"bailey/api/control/v1/controlv1connect"
)

// New returns a client of the agent at the socket, whose name is SocketName in the agent's run directory. It connects at the first call, so an agent
// that does not run is an error of calls (connect.CodeUnavailable). Safe for concurrent use.
func New(socket string) controlv1connect.ControlServiceClient {
	return controlv1connect.NewControlServiceClient(HTTP(socket), controlv1.URL)
}

// HTTP returns a client for what the agent serves beside the API, as URL + "/metrics". Whatever a request's host is, it goes to the socket. Safe for
// concurrent use.
func HTTP(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
}
