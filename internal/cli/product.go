package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	controlv1 "bailey/api/control/v1"
	"bailey/api/control/v1/controlv1connect"
	"bailey/internal/boottime"
	"bailey/internal/command"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
)

func (a *app) product() *cobra.Command {
	return command.Group(&cobra.Command{
		Use:   "product",
		Short: "Install, watch and control products",
		Example: `  bailey product install ./dist/products/allowlist
  bailey product list
  bailey product grant allowlist deny`,
	}, a.productInstall(), a.productRehearse(), a.productList(), a.productShow(), a.productStart(), a.productStop(), a.productRestart(),
		a.productRemove(), a.productGrant(), a.productRevoke(), a.productSet(), a.productLogs())
}

func (a *app) productList() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the installed products with their state and cost",
		Example: "  bailey product list\n  bailey product list --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.client().ProductList(cmd.Context(), connect.NewRequest(&controlv1.ProductListRequest{}))
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(r.Msg)
			}
			if len(r.Msg.GetProducts()) == 0 {
				a.note("no product is installed: install one with `bailey product install FOLDER`")
				return nil
			}
			a.productTable(r.Msg.GetProducts()).print(a.Stdout, "")
			return nil
		},
	}
}

// named makes a command that takes one product's name.
func (a *app) named(use, short, example string, run func(ctx context.Context, c controlv1connect.ControlServiceClient, name string) error) *cobra.Command {
	return &cobra.Command{
		Use:               use,
		Short:             short,
		Example:           example,
		Args:              exactly(1, "name one product"),
		ValidArgsFunction: a.completeProducts(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return run(cmd.Context(), a.client(), args[0])
		},
	}
}

// exactly is cobra.ExactArgs with a sentence.
func exactly(n int, sentence string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return errors.New(sentence)
		}
		return nil
	}
}

func (a *app) productShow() *cobra.Command {
	return a.named("show NAME", "Show one product: state, grants, settings, counters", "  bailey product show allowlist",
		func(ctx context.Context, c controlv1connect.ControlServiceClient, name string) error {
			r, err := c.ProductShow(ctx, connect.NewRequest(&controlv1.ProductShowRequest{Name: name}))
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(r.Msg)
			}
			a.printProduct(r.Msg.GetProduct())
			return nil
		})
}

func (a *app) productStart() *cobra.Command {
	return a.named("start NAME", "Start a stopped product", "  bailey product start allowlist",
		func(ctx context.Context, c controlv1connect.ControlServiceClient, name string) error {
			r, err := c.ProductStart(ctx, connect.NewRequest(&controlv1.ProductStartRequest{Name: name}))
			return done(a, r, err, func(m *controlv1.ProductStartResponse) string { return stateSentence(m.GetProduct()) })
		})
}

func (a *app) productStop() *cobra.Command {
	return a.named("stop NAME", "Stop a product; it stays stopped, also after a restart of the agent", "  bailey product stop allowlist",
		func(ctx context.Context, c controlv1connect.ControlServiceClient, name string) error {
			r, err := c.ProductStop(ctx, connect.NewRequest(&controlv1.ProductStopRequest{Name: name}))
			return done(a, r, err, func(m *controlv1.ProductStopResponse) string { return stateSentence(m.GetProduct()) })
		})
}

func (a *app) productRestart() *cobra.Command {
	return a.named("restart NAME", "Stop and start a product", "  bailey product restart allowlist",
		func(ctx context.Context, c controlv1connect.ControlServiceClient, name string) error {
			r, err := c.ProductRestart(ctx, connect.NewRequest(&controlv1.ProductRestartRequest{Name: name}))
			return done(a, r, err, func(m *controlv1.ProductRestartResponse) string { return stateSentence(m.GetProduct()) })
		})
}

func (a *app) productRemove() *cobra.Command {
	cmd := a.named("remove NAME", "Stop a product and delete it with its grants; its state is kept for a later installation", "  bailey product remove allowlist",
		func(ctx context.Context, c controlv1connect.ControlServiceClient, name string) error {
			r, err := c.ProductRemove(ctx, connect.NewRequest(&controlv1.ProductRemoveRequest{Name: name}))
			return done(a, r, err, func(*controlv1.ProductRemoveResponse) string { return name + " is removed" })
		})
	cmd.Aliases = []string{"rm"}
	return cmd
}

// done prints the result of a change: the whole message as JSON, or one sentence.
func done[M any, P interface {
	*M
	proto.Message
}](a *app, r *connect.Response[M], err error, sentence func(P) string) error {
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(P(r.Msg))
	}
	a.printf("%s\n", sentence(P(r.Msg)))
	return nil
}

func stateSentence(p *controlv1.Product) string {
	text := fmt.Sprintf("%s %s is %s, authority %s", p.GetName(), plain(p.GetRelease()), p.GetState(), p.GetAuthority())
	if why := why(p); why != "" {
		text += " (" + plain(why) + ")"
	}
	return text
}

// why is the reason for a product's state, else for its authority.
func why(p *controlv1.Product) string {
	if p.GetReason() != "" {
		return p.GetReason()
	}
	return p.GetAuthorityReason()
}

const grantWords = `A grant is an item such as see:exec, decide:exec, deny, deny_critical, live, on_miss:deny,
rule:exec, scope:/home, daemon:/usr/sbin/clamd or memory:256MiB; "bailey product show" lists those held.`

func (a *app) productGrant() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "grant NAME GRANT…",
		Short:   "Let a product do more",
		Long:    "Let a product do more.\n\n" + grantWords,
		Example: "  bailey product grant allowlist deny live",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.client().ProductGrant(cmd.Context(), connect.NewRequest(&controlv1.ProductGrantRequest{Name: args[0], Grants: args[1:]}))
			return done(a, r, err, func(m *controlv1.ProductGrantResponse) string { return grantSentence(m.GetProduct()) })
		},
	}
	return a.withMore(cmd, "name a product and at least one grant, e.g. `bailey product grant allowlist deny`")
}

func (a *app) productRevoke() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "revoke NAME GRANT…",
		Short:   "Take a grant back",
		Long:    "Take a grant back.\n\n" + grantWords,
		Example: "  bailey product revoke allowlist deny",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.client().ProductRevoke(cmd.Context(), connect.NewRequest(&controlv1.ProductRevokeRequest{Name: args[0], Grants: args[1:]}))
			return done(a, r, err, func(m *controlv1.ProductRevokeResponse) string { return grantSentence(m.GetProduct()) })
		},
	}
	return a.withMore(cmd, "name a product and at least one grant, e.g. `bailey product revoke allowlist deny`")
}

func grantSentence(p *controlv1.Product) string {
	return p.GetName() + " now has: " + strings.Join(p.GetGrants(), ", ")
}

// withMore gives cmd a product's name and at least one more argument.
func (a *app) withMore(cmd *cobra.Command, sentence string) *cobra.Command {
	cmd.ValidArgsFunction = a.completeProducts(1)
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) < 2 {
			return errors.New(sentence)
		}
		return nil
	}
	return cmd
}

func (a *app) productSet() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set NAME KEY=VALUE…",
		Short: "Change a product's settings",
		Long:  "Change settings that the product's author documents; the product is restarted with them. An empty\nvalue restores the default of its manifest.",
		Example: `  bailey product set allowlist mode=lockdown
  bailey product set allowlist mode=`,
		RunE: func(cmd *cobra.Command, args []string) error {
			settings := make(map[string]string)
			for _, pair := range args[1:] {
				key, value, ok := strings.Cut(pair, "=")
				if !ok || key == "" {
					return &failure{ExitUsage, fmt.Sprintf("%q is not KEY=VALUE", pair), "e.g. `bailey product set " + args[0] + " mode=monitor`"}
				}
				settings[key] = value
			}
			r, err := a.client().ProductSet(cmd.Context(), connect.NewRequest(&controlv1.ProductSetRequest{Name: args[0], Settings: settings}))
			return done(a, r, err, func(m *controlv1.ProductSetResponse) string { return settingSentence(m.GetProduct()) })
		},
	}
	return a.withMore(cmd, "name a product and at least one KEY=VALUE, e.g. `bailey product set allowlist mode=monitor`")
}

func settingSentence(p *controlv1.Product) string {
	return p.GetName() + " now has: " + strings.Join(pairs(p.GetSettings()), ", ")
}

func pairs(m map[string]string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, plain(k)+"="+plain(m[k]))
	}
	return out
}

func (a *app) productLogs() *cobra.Command {
	var follow bool
	cmd := a.named("logs NAME", "Print what a product wrote to its stdout and stderr", "  bailey product logs allowlist\n  bailey product logs allowlist -f",
		func(ctx context.Context, c controlv1connect.ControlServiceClient, name string) error {
			s, err := c.ProductLogs(ctx, connect.NewRequest(&controlv1.ProductLogsRequest{Name: name, Follow: follow}))
			if err != nil {
				return err
			}
			defer func() { _ = s.Close() }()
			for s.Receive() {
				if a.json {
					err = a.printJSON(s.Msg())
				} else {
					_, err = a.Stdout.Write(s.Msg().GetData())
				}
				if err != nil {
					return fmt.Errorf("print the log: %w", err)
				}
			}
			if ctx.Err() != nil {
				return nil
			}
			return s.Err()
		})
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what it writes from now on")
	return cmd
}

func (a *app) printProduct(p *controlv1.Product) {
	var t table
	t.row("name", p.GetName())
	t.row("release", plain(p.GetRelease()))
	t.row("description", plain(p.GetDescription()))
	t.row("state", p.GetState())
	t.row("authority", authorityText(p))
	if p.GetReason() != "" && p.GetReason() != p.GetAuthorityReason() {
		t.row("reason", plain(p.GetReason()))
	}
	t.row("restarts", p.GetRestarts())
	if p.GetPid() > 0 {
		t.row("process", fmt.Sprintf("pid %d, uid %d", p.GetPid(), p.GetUid()))
	}
	t.row("folder", p.GetFolder())
	t.row("settings", strings.Join(pairs(p.GetSettings()), ", "))
	t.row("grants", strings.Join(p.GetGrants(), ", "))
	for _, m := range p.GetMeans() {
		t.row("", "it can "+plain(m))
	}
	c := p.GetCounters()
	t.row("questions", fmt.Sprintf("%d: %d answered, %d denied, %d overridden, %d missed, %d late", c.GetQuestions(), c.GetAnswers(), c.GetDenies(), c.GetOverridden(), c.GetMisses(), c.GetLate()))
	if c.GetBraked() > 0 || c.GetCritical() > 0 {
		t.row("overridden", fmt.Sprintf("%d because it is braked, %d of files that the machine cannot do without", c.GetBraked(), c.GetCritical()))
	}
	t.row("latency", fmt.Sprintf("half within %s, 99 %% within %s", span(c.GetLatencyP50()), span(c.GetLatencyP99())))
	t.row("events", fmt.Sprintf("%d, %d lost", c.GetEvents(), c.GetLost()))
	t.row("findings", c.GetFindings())
	t.row("protocol faults", c.GetFaults())
	t.row("cost", fmt.Sprintf("%s of memory, %s of processor time", size(c.GetMemory()), span(c.GetCpu())))
	t.print(a.Stdout, "")
}

// authorityText is a product's authority with the reason, and since when.
func authorityText(p *controlv1.Product) string {
	text := p.GetAuthority()
	if since, now := p.GetAuthoritySince(), boottime.Now(); since > 0 && since < now {
		text += ", for " + span(now-since)
	}
	if p.GetAuthorityReason() != "" {
		text += ": " + plain(p.GetAuthorityReason())
	}
	return text
}

// completeProducts completes the first n arguments with the names of installed products, in a time a shell can wait.
func (a *app) completeProducts(n int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= n {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
		defer cancel()
		r, err := a.client().ProductList(ctx, connect.NewRequest(&controlv1.ProductListRequest{}))
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, p := range r.Msg.GetProducts() {
			names = append(names, p.GetName()+"\t"+p.GetDescription())
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// without returns the words that are not in used.
func without(words, used []string) []string {
	return slices.DeleteFunc(words, func(w string) bool { return slices.Contains(used, w) })
}
