package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	controlv1 "bailey/api/control/v1"
	"bailey/api/control/v1/client"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
)

func (a *app) metrics() *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "Print what the agent counts, in the form of Prometheus",
		Long: `Print what the agent counts, in the text form of Prometheus. The same is served to scrapers as
GET /metrics on the control socket and, if metrics.listen of the configuration says so, on a port of
loopback.`,
		Example: `  bailey metrics | grep ^bailey_product
  curl --unix-socket /run/bailey/control.sock http://bailey/metrics`,
		Args: func(_ *cobra.Command, args []string) error {
			if a.json {
				return errors.New("metrics have the form of Prometheus; `bailey status --json` has the agent's counts as JSON")
			}
			return cobra.NoArgs(nil, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return a.printMetrics(cmd.Context()) },
	}
}

func (a *app) printMetrics(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, controlv1.URL+"/metrics", nil)
	if err != nil {
		return fmt.Errorf("ask for metrics: %w", err)
	}
	out, err := client.HTTP(a.socket()).Do(r)
	if err != nil {
		return connect.NewError(connect.CodeUnavailable, err)
	}
	defer func() { _ = out.Body.Close() }()
	if out.StatusCode != http.StatusOK {
		return &failure{ExitFailed, "the agent gives no metrics: " + out.Status, "look at its version with `bailey status`"}
	}
	if _, err := io.Copy(a.Stdout, out.Body); err != nil {
		return fmt.Errorf("print metrics: %w", err)
	}
	return nil
}
