package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	controlv1 "bailey/api/control/v1"
	"bailey/internal/command"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
)

func (a *app) update() *cobra.Command {
	return command.Group(&cobra.Command{
		Use:   "update",
		Short: "Show and steer how new releases of products come in",
		Long: `With mirrors under [update] in its configuration an agent fetches releases of products that their vendors signed, rehearses each
against this machine's recent past, puts it in force, watches it, and goes back at the first harm. Each stream, a product's code or its
content, can be held, steered and taken back here.`,
		Example: `  bailey update list
  bailey update show acme/edr/content
  bailey update plan acme/edr/content
  bailey update pin acme/edr/content 2026.11.21.4
  bailey update rollback acme/edr/content`,
	}, a.updateList(), a.updateShow(), a.updateCheck(), a.updatePlan(), a.updateApply(), a.updatePin(), a.updateSkip(), a.updateHistory(),
		a.steer("pause", "Let no new release of a stream get a say", "What is fetched and rehearsed waits."),
		a.steer("resume", "End a pause or a freeze; what went wrong is tried again", ""),
		a.steer("rollback", "Put the release before the one in force back", "The one that was in force is not tried again until bailey update resume."))
}

func (a *app) updates(ctx context.Context) (*controlv1.UpdateListResponse, error) {
	r, err := a.client().UpdateList(ctx, connect.NewRequest(&controlv1.UpdateListRequest{}))
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

func (a *app) updateList() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the streams with what is installed, offered and on its way",
		Example: "  bailey update list\n  bailey update list --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := a.updates(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(m)
			}
			if !m.GetEnabled() {
				a.note("this agent follows no repository: name mirrors, the root and streams under [update] in its configuration")
				return nil
			}
			var t table
			t.row("STREAM", "INSTALLED", "OFFERED", "UPDATE", "STATE", "WHY")
			for _, s := range m.GetStreams() {
				offered := ""
				if len(s.GetOffers()) > 0 {
					offered = s.GetOffers()[0].GetVersion()
				}
				u := s.GetUpdate()
				t.row(s.GetStream(), dash(plain(s.GetInstalled())), dash(plain(offered)), dash(u.GetVersion()), dash(u.GetState()), plain(stateOf(s)))
			}
			t.print(a.Stdout, "")
			a.noteLook(m)
			return nil
		},
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// stateOf says what a stream does, or why it does nothing.
func stateOf(s *controlv1.UpdateStream) string {
	var words []string
	if o := s.GetOverrides(); len(o) > 0 {
		words = append(words, "local override: "+strings.Join(o, ", "))
	}
	if s.GetFrozen() != "" {
		words = append(words, "frozen: "+s.GetFrozen())
	}
	reason := s.GetWaiting()
	if r := s.GetUpdate().GetReason(); r != "" && reason != "the newest is installed" {
		reason = r
	}
	for _, w := range []string{s.GetProblem(), reason} {
		if w != "" && !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	return strings.Join(words, "; ")
}

func (a *app) noteLook(m *controlv1.UpdateListResponse) {
	switch {
	case m.GetProblem() != "":
		a.note("the mirrors could not be looked at: %s", plain(m.GetProblem()))
	case m.GetTried() == 0:
		a.note("the mirrors were not looked at yet")
	}
}

// stream finds one stream of the list.
func (a *app) stream(ctx context.Context, name string) (*controlv1.UpdateStream, error) {
	m, err := a.updates(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range m.GetStreams() {
		if s.GetStream() == name {
			return s, nil
		}
	}
	return nil, &failure{ExitNotFound, fmt.Sprintf("no stream is called %q", name), "`bailey update list` shows those that are followed"}
}

func (a *app) updateShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show STREAM",
		Short:   "Show one stream: what is offered, what is on its way, and what its rehearsal found",
		Example: "  bailey update show acme/edr/content",
		Args:    exactly(1, "name one stream"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.stream(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(s)
			}
			a.printStream(s)
			return nil
		},
	}
	cmd.ValidArgsFunction = a.completeStreams
	return cmd
}

func (a *app) printStream(s *controlv1.UpdateStream) {
	at := func(ns int64) string { return time.Unix(0, ns).Format(time.RFC3339) }
	var t table
	t.row("stream", s.GetStream())
	t.row("installed", dash(plain(s.GetInstalled())))
	if c := s.GetSettings(); c != nil {
		t.row("taken", taken(c))
	}
	for _, o := range s.GetOverrides() {
		t.row("local override", plain(o)+ends(o, s.GetStream()))
	}
	if s.GetFrozen() != "" {
		t.row("frozen", plain(s.GetFrozen())+" (bailey update resume "+s.GetStream()+")")
	}
	if s.GetProblem() != "" {
		t.row("problem", plain(s.GetProblem()))
	}
	if s.GetWaiting() != "" {
		t.row("nothing new", plain(s.GetWaiting()))
	}
	var offers []string
	for _, o := range s.GetOffers() {
		text := fmt.Sprintf("%s, %s, %s, epoch %d", plain(o.GetVersion()), size(o.GetBytes()), o.GetUrgency(), o.GetEpoch())
		if o.GetBad() != "" {
			text += ", not tried: " + plain(o.GetBad())
		}
		offers = append(offers, text)
	}
	t.list("offered", offers)
	if u := s.GetUpdate(); u != nil {
		t.row("update", fmt.Sprintf("%s, %s since %s", plain(u.GetVersion()), u.GetState(), at(u.GetChanged())))
		if u.GetState() == "fetch" {
			t.row("fetched", fmt.Sprintf("%s of %s", size(u.GetFetched()), size(u.GetBytes())))
		}
		t.row("reason", plain(u.GetReason()))
		t.row("began", at(u.GetBegan()))
		switch u.GetState() {
		case "shadow":
			t.row("beside until", at(u.GetUntil()))
		case "watch":
			t.row("watched until", at(u.GetUntil()))
		}
		if u.GetRelease() != "" {
			t.row("release", fmt.Sprintf("%s, in place of %s", plain(u.GetRelease()), dash(plain(u.GetPrevious()))))
		}
		var asks []string
		for _, item := range u.GetAsks() {
			asks = append(asks, plain(item))
		}
		t.list("asks for", asks)
	}
	t.print(a.Stdout, "")
	if r := s.GetUpdate().GetRehearsal(); r != nil {
		a.printf("\n")
		a.printRehearsal(r)
	}
	if c := s.GetUpdate().GetComparison(); c != nil {
		a.printf("\n")
		a.printComparison(c)
	}
}

// printComparison shows what a release answered beside the one in force.
func (a *app) printComparison(c *controlv1.Comparison) {
	a.printf("beside the release in force\n")
	var t table
	t.row("asked", fmt.Sprintf("%d, %d of them answered by both, %d missed", c.GetAsked(), c.GetCompared(), c.GetMissed()))
	t.row("latency", fmt.Sprintf("half within %s, 99 %% within %s", span(c.GetLatencyP50()), span(c.GetLatencyP99())))
	if n := c.GetUnseen(); n > 0 {
		t.row("note", fmt.Sprintf("%d questions were too many to compare", n))
	}
	t.print(a.Stdout, "")
	a.printDifferences("denied by it, and allowed by the one in force", c.GetNewDeny())
	a.printDifferences("allowed by it, and denied by the one in force", c.GetNewAllow())
}

// taken says how a stream's releases are taken by the configuration.
func taken(c *controlv1.UpdateSettings) string {
	words := []string{"the newest"}
	if n := c.GetLag(); n > 0 {
		words[0] = fmt.Sprintf("%d behind the newest", n)
	}
	if d := time.Duration(c.GetDefer()); d > 0 {
		words = append(words, fmt.Sprintf("offered for %v", d))
	}
	if w := c.GetWindows(); len(w) > 0 {
		text := "in force in " + strings.Join(w, " and ")
		if c.GetUrgentIgnoresWindows() {
			text += ", urgent ones always"
		}
		words = append(words, text)
	}
	if c.GetManual() {
		words = append(words, "with the operator's word")
	}
	if d := time.Duration(c.GetShadow()); d > 0 {
		words = append(words, fmt.Sprintf("in shadow for %v", d))
	}
	return strings.Join(append(words, fmt.Sprintf("watched for %v", time.Duration(c.GetWatch()))), "; ")
}

// ends says what ends an override, if anything does.
func ends(override, stream string) string {
	switch word, _, _ := strings.Cut(override, " "); word {
	case "paused", "skips":
		return " (bailey update resume " + stream + ")"
	case "pinned":
		return " (bailey update pin " + stream + " none)"
	}
	return ""
}

func (a *app) updateCheck() *cobra.Command {
	return &cobra.Command{
		Use:     "check",
		Short:   "Look at the mirrors now",
		Example: "  bailey update check",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.client().UpdateCheck(cmd.Context(), connect.NewRequest(&controlv1.UpdateCheckRequest{}))
			return done(a, r, err, func(*controlv1.UpdateCheckResponse) string {
				return "the mirrors are looked at: see bailey update list"
			})
		},
	}
}

// set does what is wanted of a stream.
func (a *app) set(ctx context.Context, r *controlv1.UpdateSetRequest) error {
	resp, err := a.client().UpdateSet(ctx, connect.NewRequest(r))
	return done(a, resp, err, func(m *controlv1.UpdateSetResponse) string {
		s := m.GetStream()
		text := s.GetStream() + ": "
		if u := s.GetUpdate(); u != nil {
			text += fmt.Sprintf("%s %s", plain(u.GetVersion()), u.GetState())
		} else {
			text += "nothing is on its way"
		}
		if why := stateOf(s); why != "" {
			text += " (" + plain(why) + ")"
		}
		return text
	})
}

// steer makes a command that takes one stream.
func (a *app) steer(action, short, long string) *cobra.Command {
	return &cobra.Command{
		Use:               action + " STREAM",
		Short:             short,
		Long:              strings.TrimSpace(short + ".\n\n" + long),
		Example:           "  bailey update " + action + " acme/edr/content",
		Args:              exactly(1, "name one stream"),
		ValidArgsFunction: a.completeStreams,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.set(cmd.Context(), &controlv1.UpdateSetRequest{Stream: args[0], Action: action})
		},
	}
}

func (a *app) updatePin() *cobra.Command {
	return &cobra.Command{
		Use:   "pin STREAM VERSION",
		Short: "Want one version and no other, older or newer; none ends that",
		Example: `  bailey update pin acme/edr/content 2026.11.21.4
  bailey update pin acme/edr/content none`,
		Args:              exactly(2, "name a stream and a version, or none"),
		ValidArgsFunction: a.completeStreams,
		RunE: func(cmd *cobra.Command, args []string) error {
			version := args[1]
			if version == "none" {
				version = ""
			}
			return a.set(cmd.Context(), &controlv1.UpdateSetRequest{Stream: args[0], Action: "pin", Version: version})
		},
	}
}

func (a *app) updateSkip() *cobra.Command {
	return &cobra.Command{
		Use:               "skip STREAM VERSION",
		Short:             "Never take one version",
		Example:           "  bailey update skip acme/edr/content 2026.11.22.1",
		Args:              exactly(2, "name a stream and a version"),
		ValidArgsFunction: a.completeStreams,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.set(cmd.Context(), &controlv1.UpdateSetRequest{Stream: args[0], Action: "skip", Version: args[1]})
		},
	}
}

func (a *app) updateHistory() *cobra.Command {
	var limit uint32
	cmd := &cobra.Command{
		Use:     "history",
		Short:   "List the newest moves of updates",
		Example: "  bailey update history\n  bailey update history --limit 1000 --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.client().UpdateHistory(cmd.Context(), connect.NewRequest(&controlv1.UpdateHistoryRequest{Limit: limit}))
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(r.Msg)
			}
			if len(r.Msg.GetMoves()) == 0 {
				a.note("no release has come in yet")
				return nil
			}
			var t table
			t.row("TIME", "STREAM", "VERSION", "FROM", "TO", "WHY")
			for _, m := range r.Msg.GetMoves() {
				t.row(time.Unix(0, m.GetTime()).Format(time.RFC3339), m.GetStream(), plain(m.GetVersion()), dash(m.GetFrom()), m.GetTo(), plain(m.GetReason()))
			}
			t.print(a.Stdout, "")
			return nil
		},
	}
	cmd.Flags().Uint32Var(&limit, "limit", 100, "how many")
	return cmd
}

// completeStreams completes the first argument with the streams that are followed, in a time a shell can wait.
func (a *app) completeStreams(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
	defer cancel()
	m, err := a.updates(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, s := range m.GetStreams() {
		names = append(names, s.GetStream()+"\t"+s.GetInstalled())
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
