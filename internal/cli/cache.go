package cli

import (
	controlv1 "bailey/api/control/v1"

	"bailey/internal/command"
	"connectrpc.com/connect"

	"github.com/spf13/cobra"
)

func (a *app) cache() *cobra.Command {
	show := &cobra.Command{
		Use:     "show",
		Short:   "Show how full the verdict cache is and why it was cleared",
		Example: "  bailey cache show",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.client().CacheShow(cmd.Context(), connect.NewRequest(&controlv1.CacheShowRequest{}))
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(r.Msg)
			}
			a.printCache(r.Msg.GetCache())
			return nil
		},
	}
	clear := &cobra.Command{
		Use:     "clear",
		Short:   "Forget every verdict, so that every file is asked about again",
		Example: "  bailey cache clear",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.client().CacheClear(cmd.Context(), connect.NewRequest(&controlv1.CacheClearRequest{}))
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(r.Msg)
			}
			a.printf("forgot %d verdicts and flushed the kernel's marks\n", r.Msg.GetEntries())
			return nil
		},
	}
	return command.Group(&cobra.Command{
		Use:     "cache",
		Short:   "Show or clear the verdict cache",
		Example: "  bailey cache show\n  bailey cache clear",
	}, show, clear)
}

func (a *app) printCache(c *controlv1.Cache) {
	if !c.GetEnabled() {
		a.printf("off\n")
		return
	}
	var t table
	t.row("verdicts", c.GetEntries())
	t.row("kernel marks", c.GetMarks())
	t.row("hits", c.GetHits())
	t.row("cleared", counts(c.GetCleared()))
	t.print(a.Stdout, "")
}
