package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"bailey/agent/event"
	controlv1 "bailey/api/control/v1"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
)

func (a *app) events() *cobra.Command {
	var span time.Duration
	var tree bool
	var products []string
	cmd := &cobra.Command{
		Use:   "events [TYPE…]",
		Short: "Watch what happens on this machine, live",
		Long: `Watch events as they happen; without a TYPE, all of them. The types are
  exec, fork, exit                                processes
  create, close_write, rename, unlink, attrib     changes of files
  verdict                                         what products were asked, and what was denied
  finding, product, health                        what products and the agent report
Each line has the time, the type, the process id and user id, the executable, and what it did.
With --json each line is one bailey.product.v1.Event. Events that were dropped because the reader
was too slow are announced on stderr.`,
		Example: `  bailey events exec --tree               # programs that start, with their ancestors
  bailey events verdict finding           # what was decided and found
  bailey events --json --for 10s          # ten seconds of everything, for a script`,
		ValidArgsFunction: a.completeKinds,
		Args: func(_ *cobra.Command, args []string) error {
			for _, w := range args {
				if _, err := event.ParseKind(w); err != nil {
					return err
				}
			}
			if tree && a.json {
				return errors.New("--tree shapes the human form; with --json every event has its process's key and its parent's")
			}
			if span < 0 {
				return fmt.Errorf("--for %s is negative", span)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.watch(cmd.Context(), &controlv1.EventsRequest{Kinds: args, For: uint64(span), Ancestors: tree, Products: products})
		},
	}
	cmd.Flags().DurationVar(&span, "for", 0, "stop after this long, e.g. 10s")
	cmd.Flags().BoolVar(&tree, "tree", false, "show each process's ancestors")
	cmd.Flags().StringSliceVar(&products, "product", nil, "of verdicts, findings and states only those of this product")
	return cmd
}

// watch prints events until the stream or ctx ends. The operator's interrupt is a normal end.
func (a *app) watch(ctx context.Context, r *controlv1.EventsRequest) error {
	s, err := a.client().Events(ctx, connect.NewRequest(r))
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	out := bufio.NewWriter(a.Stdout)
	line := newEventLine(a.paint(), r.GetAncestors())
	for s.Receive() {
		m := s.Msg()
		if m.GetLost() > 0 {
			a.note("%d events were dropped here because they are read too slowly", m.GetLost())
		}
		if m.GetEvent() == nil {
			continue
		}
		var text []byte
		if a.json {
			text, err = eventJSON(m.GetEvent())
		} else {
			text = line.format(m.GetEvent(), m.GetAncestors())
		}
		if err != nil {
			return err
		}
		if _, err := out.Write(text); err != nil {
			return fmt.Errorf("print events: %w", err)
		}
		// Flushed for each event, because whoever watches waits for it.
		if err := out.Flush(); err != nil {
			return fmt.Errorf("print events: %w", err)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return s.Err()
}

func (a *app) completeKinds(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var out []string
	for _, k := range event.Kinds() {
		out = append(out, k.String())
	}
	return without(out, args), cobra.ShellCompDirectiveNoFileComp
}
