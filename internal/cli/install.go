package cli

import (
	"bufio"
	"context"
	"fmt"
	"path/filepath"
	"strings"

	controlv1 "bailey/api/control/v1"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
)

func (a *app) productInstall() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "install FOLDER",
		Short: "Install a product, after showing what it asks for",
		Long: `Install the product in FOLDER (the folder with its manifest.toml), or a new release of one that is
installed. What the manifest requests is shown first and granted as a whole if approved; exactly
what was shown is installed, or nothing.`,
		Example: `  bailey product install ./dist/products/allowlist
  bailey product install ./dist/products/allowlist --yes     # approve without being asked`,
		Args: exactly(1, "name one folder that holds a manifest.toml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.install(cmd.Context(), args[0], yes)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "approve what the manifest requests")
	return cmd
}

func (a *app) install(ctx context.Context, folder string, yes bool) error {
	if !yes && !isTerminal(a.Stdin) {
		return &failure{ExitUsage, "installing a product needs an approval, and there is no terminal to ask on", "look at the folder's manifest.toml, then approve what it requests with --yes"}
	}
	path, err := filepath.Abs(folder)
	if err != nil {
		return fmt.Errorf("find %s: %w", folder, err)
	}
	c := a.client()
	plan, err := c.ProductPlan(ctx, connect.NewRequest(&controlv1.ProductPlanRequest{Path: path}))
	if err != nil {
		return err
	}
	if !yes {
		a.showPlan(plan.Msg)
		ok, err := a.ask("Install it and grant this? [y/N] ")
		if err != nil {
			return err
		}
		if !ok {
			return &failure{ExitFailed, "nothing was installed", ""}
		}
	}
	r, err := c.ProductInstall(ctx, connect.NewRequest(&controlv1.ProductInstallRequest{Path: path, Approved: plan.Msg.GetHash()}))
	return done(a, r, err, func(m *controlv1.ProductInstallResponse) string { return stateSentence(m.GetProduct()) })
}

// showPlan says on stderr, beside which the question will be, what an approval grants.
func (a *app) showPlan(p *controlv1.ProductPlanResponse) {
	fmt.Fprintf(a.Stderr, "%s %s: %s\n", p.GetName(), plain(p.GetRelease()), plain(p.GetDescription()))
	means := p.GetMeans()
	switch {
	case p.GetInstalled() == "":
		fmt.Fprintln(a.Stderr, "It asks to")
	case len(p.GetAddedMeans()) == 0:
		fmt.Fprintf(a.Stderr, "It replaces release %s and asks for nothing new.\n", plain(p.GetInstalled()))
		return
	default:
		means = p.GetAddedMeans()
		fmt.Fprintf(a.Stderr, "It replaces release %s and asks, beyond what that has, to\n", plain(p.GetInstalled()))
	}
	for _, m := range means {
		fmt.Fprintf(a.Stderr, "  - %s\n", plain(m))
	}
}

// ask puts a question to the operator; only a clear yes is one.
func (a *app) ask(prompt string) (bool, error) {
	fmt.Fprint(a.Stderr, prompt)
	s := bufio.NewScanner(a.Stdin)
	if !s.Scan() {
		return false, s.Err()
	}
	answer := strings.ToLower(strings.TrimSpace(s.Text()))
	return answer == "y" || answer == "yes", nil
}
