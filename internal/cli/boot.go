package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	controlv1 "bailey/api/control/v1"
	"bailey/internal/command"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
)

func (a *app) boot() *cobra.Command {
	cmd := command.Group(&cobra.Command{
		Use:   "boot",
		Short: "Show how this machine's boots went, and leave safe mode",
		Long: `Show how this machine's boots went. A boot that was not good for boot.good_after and did not end in order is
unclean. After the first one, releases that are new since the last good boot go back; after boot.safe_after of them in
a row no product is started and nobody is asked: safe mode. It is left by a release that changes, or by "bailey boot good".
With no agent running, see "bailey recover".`,
		Example: "  bailey boot\n  bailey boot --json | jq .safe\n  bailey boot good",
		Args:    cobra.NoArgs,
	}, a.bootGood())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r, err := a.client().Status(cmd.Context(), connect.NewRequest(&controlv1.StatusRequest{}))
		if err != nil {
			return err
		}
		b := r.Msg.GetBoot()
		if a.json {
			return a.printJSON(b)
		}
		t := bootTable(b)
		t.print(a.Stdout, "")
		return nil
	}
	return cmd
}

func (a *app) bootGood() *cobra.Command {
	return &cobra.Command{
		Use:   "good",
		Short: "Forget the unclean boots, and leave safe mode",
		Long: `Forget the unclean boots that were counted. In safe mode, enabled products are started at once: take what did harm off or
back first, with "bailey product stop" or "bailey update rollback".`,
		Example: "  bailey boot good",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.client().BootGood(cmd.Context(), connect.NewRequest(&controlv1.BootGoodRequest{}))
			return done(a, r, err, func(m *controlv1.BootGoodResponse) string { return "boot: " + bootLine(m.GetBoot()) })
		},
	}
}

// bootLine says in status how boots go.
func bootLine(b *controlv1.Boot) string {
	switch {
	case b == nil:
		return "this agent does not say: it is older than this command"
	case b.GetSafe() != "" && b.GetSensorsOff() != "":
		return "SAFE MODE WITHOUT SENSORS: " + plain(b.GetSafe()) + "; " + plain(b.GetSensorsOff())
	case b.GetSafe() != "":
		return "SAFE MODE: " + plain(b.GetSafe())
	case b.GetSensorsOff() != "":
		return "WITHOUT SENSORS until the agent is started again: " + plain(b.GetSensorsOff())
	case b.GetUnclean() > 0:
		return fmt.Sprintf("%s in a row did not end well; after %d there is safe mode", plural(int(b.GetUnclean()), "boot", "boots"), b.GetSafeAfter())
	case b.GetGood():
		return "good"
	}
	return "not long enough yet to be good"
}

func bootTable(b *controlv1.Boot) table {
	var t table
	t.row("boot", bootLine(b))
	if b.GetLeave() != "" {
		t.row("", "→ "+plain(b.GetLeave()))
	}
	for _, back := range b.GetBack() {
		t.row("went back", fmt.Sprintf("%s from %s to %s", plain(back.GetProduct()), plain(back.GetFrom()), plain(back.GetTo())))
	}
	if len(b.GetLastGood()) > 0 {
		t.row("last good", plain(releasesText(b.GetLastGood())))
	}
	return t
}

// releasesText lists products with their releases.
func releasesText(releases map[string]string) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(releases)) {
		out = append(out, name+" "+releases[name])
	}
	return strings.Join(out, ", ")
}
