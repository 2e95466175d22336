package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	controlv1 "bailey/api/control/v1"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
)

func (a *app) updatePlan() *cobra.Command {
	return &cobra.Command{
		Use:   "plan STREAM",
		Short: "Say what would come of a stream, and change nothing",
		Long: `Say which release is on its way or would be, what is fetched for it, what it requires, what it waits for, the states ahead, and why the
others that are offered are not taken. Nothing is changed. What a rehearsal finds is known only when there was one.`,
		Example:           "  bailey update plan acme/edr/content\n  bailey update plan acme/edr/content --json",
		Args:              exactly(1, "name one stream"),
		ValidArgsFunction: a.completeStreams,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.plan(cmd.Context(), args[0], false) },
	}
}

// plan prints what would come of a stream.
func (a *app) plan(ctx context.Context, stream string, force bool) error {
	r, err := a.client().UpdatePlan(ctx, connect.NewRequest(&controlv1.UpdatePlanRequest{Stream: stream, Force: force}))
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r.Msg)
	}
	m := r.Msg
	var t table
	t.row("stream", m.GetStream())
	switch {
	case m.GetVersion() == "":
		t.row("release", "none: "+plain(m.GetWaiting()))
	case m.GetState() == "":
		t.row("release", plain(m.GetVersion()))
	default:
		t.row("release", fmt.Sprintf("%s, now in %s", plain(m.GetVersion()), m.GetState()))
	}
	if m.GetBytes() > 0 {
		t.row("fetches", fetches(m))
	}
	t.list("requires", m.GetRequires())
	var waits, others []string
	for _, w := range m.GetWaits() {
		waits = append(waits, fmt.Sprintf("in %s: %s", w.GetState(), plain(w.GetReason())))
	}
	for _, o := range m.GetOthers() {
		others = append(others, fmt.Sprintf("%s: %s", plain(o.GetVersion()), plain(o.GetReason())))
	}
	t.list("waits", waits)
	if len(m.GetAhead()) > 0 {
		t.row("ahead", strings.Join(m.GetAhead(), ", "))
	}
	t.list("not taken", others)
	t.print(a.Stdout, "")
	return nil
}

func fetches(m *controlv1.UpdatePlanResponse) string {
	what := "the bundle"
	if m.GetBase() != "" {
		what = "a delta from " + plain(m.GetBase())
	}
	text := fmt.Sprintf("%s, %s", what, size(m.GetBytes()))
	if m.GetFetched() > 0 {
		text += fmt.Sprintf(", of which %s are here", size(m.GetFetched()))
	}
	return text
}

func (a *app) updateApply() *cobra.Command {
	var force, dry, wait bool
	cmd := &cobra.Command{
		Use:   "apply STREAM",
		Short: "Say yes to the release that waits for it",
		Long: `Say yes to the release that waits: because it asks for more than it was granted, or because every release waits here. With --force
it comes into force whatever its rehearsal says, outside of maintenance windows and a pause too, also one that was refused already; it is
watched all the same. With --dry-run nothing is changed, and what would come of it is said. With --wait the command ends when the update
has ended, with success if the release was committed, and says each step and how much is fetched.`,
		Example: `  bailey update show acme/edr/code    # what it asks for
  bailey update apply acme/edr/code --dry-run
  bailey update apply acme/edr/code --wait
  bailey update apply acme/edr/code --force`,
		Args:              exactly(1, "name one stream"),
		ValidArgsFunction: a.completeStreams,
		RunE: func(cmd *cobra.Command, args []string) error {
			if dry && wait {
				return &failure{ExitUsage, "a dry run changes nothing that could be waited for", "leave --dry-run or --wait out"}
			}
			if dry {
				return a.plan(cmd.Context(), args[0], force)
			}
			r := &controlv1.UpdateSetRequest{Stream: args[0], Action: "apply", Force: force}
			if !wait {
				return a.set(cmd.Context(), r)
			}
			if _, err := a.client().UpdateSet(cmd.Context(), connect.NewRequest(r)); err != nil {
				return err
			}
			return a.follow(cmd.Context(), args[0])
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "whatever its rehearsal says")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would come of it, and change nothing")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the update has ended")
	return cmd
}

// updateEvery is how often an update that is waited for is looked at.
const updateEvery = 200 * time.Millisecond

// follow waits until a stream's update has ended, and says on stderr what it does meanwhile.
func (a *app) follow(ctx context.Context, name string) error {
	said := ""
	tick := time.NewTicker(updateEvery)
	defer tick.Stop()
	for {
		s, err := a.stream(ctx, name)
		if err != nil {
			return err
		}
		u := s.GetUpdate()
		if now := step(u); now != said {
			said = now
			a.note("%s", now)
		}
		switch u.GetState() {
		case "committed":
			if a.json {
				return a.printJSON(s)
			}
			a.printf("%s: %s is in force\n", s.GetStream(), plain(u.GetVersion()))
			return nil
		case "refused", "rolled_back", "superseded":
			return &failure{ExitFailed, fmt.Sprintf("%s: %s is %s: %s", s.GetStream(), plain(u.GetVersion()), u.GetState(), plain(u.GetReason())), "see: bailey update show " + s.GetStream()}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// step says what an update does, in tenths of what is fetched.
func step(u *controlv1.Update) string {
	text := plain(u.GetVersion()) + " " + u.GetState()
	if all := u.GetBytes(); u.GetState() == "fetch" && all > 0 {
		return text + fmt.Sprintf(": %d %% of %s", u.GetFetched()*10/all*10, size(all))
	}
	if u.GetReason() != "" {
		text += ": " + plain(u.GetReason())
	}
	return text
}
