package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	controlv1 "bailey/api/control/v1"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
)

func (a *app) productInstall() *cobra.Command {
	var yes, rehearse bool
	cmd := &cobra.Command{
		Use:   "install FOLDER",
		Short: "Install a product, after showing what it asks for",
		Long: `Install the product in FOLDER (the folder with its manifest.toml), or a new release of one that is
installed. What the manifest requests is shown first and granted as a whole if approved; exactly
what was shown is installed, or nothing. With --rehearse it is tried first (see bailey product rehearse), and
installed only if it passes.`,
		Example: `  bailey product install ./dist/products/allowlist
  bailey product install ./dist/products/allowlist --yes     # approve without being asked
  bailey product install ./acme-7.2 --rehearse               # and only if this machine's past says yes`,
		Args: exactly(1, "name one folder that holds a manifest.toml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.install(cmd.Context(), args[0], yes, rehearse)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "approve what the manifest requests")
	cmd.Flags().BoolVar(&rehearse, "rehearse", false, "try it against this machine's recent past first")
	return cmd
}

func (a *app) install(ctx context.Context, folder string, yes, rehearse bool) error {
	path, plan, err := a.approve(ctx, folder, yes, "Install it and grant this? [y/N] ", "nothing was installed")
	if err != nil {
		return err
	}
	if rehearse {
		if err := a.passes(ctx, path, plan.GetHash()); err != nil {
			return err
		}
	}
	r, err := a.client().ProductInstall(ctx, connect.NewRequest(&controlv1.ProductInstallRequest{Path: path, Approved: plan.GetHash()}))
	return done(a, r, err, func(m *controlv1.ProductInstallResponse) string { return stateSentence(m.GetProduct()) })
}

// passes rehearses a release and says why it is not installed if it fails.
func (a *app) passes(ctx context.Context, path, hash string) error {
	r, err := a.rehearse(ctx, path, hash)
	if err != nil {
		return err
	}
	if r.GetPassed() {
		a.note("%s", verdictOn(r))
		return nil
	}
	return &failure{
		ExitFailed, "nothing was installed: " + verdictOn(r) + ": " + plain(strings.Join(r.GetReasons(), "; ")),
		"see all of it with: bailey product rehearse " + path,
	}
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
