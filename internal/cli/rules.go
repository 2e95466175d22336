package cli

import (
	"fmt"
	"time"

	controlv1 "bailey/api/control/v1"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
)

func (a *app) rules() *cobra.Command {
	return &cobra.Command{
		Use:   "rules",
		Short: "List the standing denies that products have in the kernel",
		Long: `A product with a grant rule:ACTION installs rules that the kernel enforces with no round trip, whether or not the product
and the agent run, until their lease ends. What a rule refuses is a finding of its product. Revoking the grant ends
its rules at once; the rules of a braked product, or of one in shadow, refuse nothing and say what they would have.`,
		Example: `  bailey rules
  bailey rules --json
  bailey product revoke acme rule:exec`,
		Args: cobra.NoArgs,
		RunE: a.listRules,
	}
}

func (a *app) listRules(cmd *cobra.Command, _ []string) error {
	r, err := a.client().RuleList(cmd.Context(), connect.NewRequest(&controlv1.RuleListRequest{}))
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r.Msg)
	}
	if len(r.Msg.GetRules()) == 0 {
		a.note("no product has a rule")
		return nil
	}
	var t table
	t.row("PRODUCT", "RULE", "ACTION", "HOLDS FOR", "LEFT", "HITS", "STATE")
	for _, x := range r.Msg.GetRules() {
		state := "enforced"
		if !x.GetEnforced() {
			state = "told only"
		}
		t.row(plain(x.GetProduct()), plain(x.GetId()), plain(x.GetAction()), plain(x.GetMatch()), time.Duration(x.GetLeft()).Round(time.Second).String(),
			fmt.Sprint(x.GetHits()), state)
	}
	t.print(a.Stdout, "")
	return nil
}
