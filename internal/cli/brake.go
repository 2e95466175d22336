package cli

import (
	"context"
	"fmt"
	"time"

	controlv1 "bailey/api/control/v1"
	"bailey/api/control/v1/controlv1connect"
	"bailey/internal/command"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
)

func (a *app) brake() *cobra.Command {
	list := &cobra.Command{
		Use:     "list",
		Short:   "List the products whose denies do not count because they denied too much",
		Example: "  bailey brake list\n  bailey brake list --json",
		Args:    cobra.NoArgs,
		RunE:    a.listBraked,
	}
	cmd := command.Group(&cobra.Command{
		Use:   "brake",
		Short: "Show and release products that denied too much",
		Long: `A product that denies more than the brake's limits (see [brake] in "bailey agent --print-config", and the
grants deny_files:N and deny_package_files:N) is braked: it is asked on, and each of its denies is a finding
instead of a verdict, until it is released. Without a command below, braked products are listed.`,
		Example: `  bailey brake
  bailey events finding --product clamav  # what it would have denied
  bailey brake release clamav`,
	}, list, a.brakeRelease())
	cmd.RunE = a.listBraked
	return cmd
}

func (a *app) listBraked(cmd *cobra.Command, _ []string) error {
	r, err := a.client().BrakeList(cmd.Context(), connect.NewRequest(&controlv1.BrakeListRequest{}))
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r.Msg)
	}
	if len(r.Msg.GetBraked()) == 0 {
		a.note("no product is braked")
		return nil
	}
	for i, b := range r.Msg.GetBraked() {
		if i > 0 {
			a.printf("\n")
		}
		a.printBraked(b)
	}
	return nil
}

func (a *app) printBraked(b *controlv1.BrakedProduct) {
	var t table
	t.row("product", b.GetProduct())
	t.row("release", plain(b.GetRelease()))
	t.row("since", time.Unix(0, b.GetSince()).Format(time.RFC3339))
	t.row("reason", plain(b.GetReason()))
	for i, f := range b.GetFiles() {
		head := ""
		if i == 0 {
			head = "it denied"
		}
		t.row(head, plain(f))
	}
	t.row("since then", fmt.Sprintf("%d denies that did not count", b.GetDenies()))
	t.row("", "→ `bailey brake release "+b.GetProduct()+"` lets its denies count again")
	t.print(a.Stdout, "")
}

func (a *app) brakeRelease() *cobra.Command {
	return a.named("release NAME", "Let a braked product's denies count again", "  bailey brake release clamav",
		func(ctx context.Context, c controlv1connect.ControlServiceClient, name string) error {
			r, err := c.BrakeRelease(ctx, connect.NewRequest(&controlv1.BrakeReleaseRequest{Name: name}))
			return done(a, r, err, func(m *controlv1.BrakeReleaseResponse) string { return stateSentence(m.GetProduct()) })
		})
}
