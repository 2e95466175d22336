package cli

import (
	"fmt"

	"bailey/agent/control"
	"bailey/api/control/v1/client"
	"bailey/api/control/v1/controlv1connect"

	"google.golang.org/protobuf/proto"
)

// client returns a client of the chosen agent. It connects at the first call.
func (a *app) client() controlv1connect.ControlServiceClient {
	return client.New(a.socket())
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
