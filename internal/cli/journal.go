package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"bailey/agent/config"
	"bailey/agent/journal"
	controlv1 "bailey/api/control/v1"
	"bailey/internal/command"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
)

func (a *app) journal() *cobra.Command {
	show := a.journalShow()
	cmd := command.Group(&cobra.Command{
		Use:   "journal",
		Short: "Show or verify the record of grants, operators' actions and denies",
		Long: `The journal is what the agent writes down for later: what was granted and installed, who
changed what through the control API, which denies took effect and which did not count, how products
and the agent's parts fared. Its lines are chained by hashes. These commands read its files and need no
agent; without --state the place is the running agent's, else the one in ` + config.DefaultPath + `.`,
		Example: `  bailey journal                          # the same as: bailey journal show
  bailey journal verify
  bailey journal head`,
	}, show, a.journalVerify(), a.journalHead())
	cmd.RunE = show.RunE
	cmd.Flags().AddFlagSet(show.Flags())
	return cmd
}

// stateFlag adds --state.
func stateFlag(cmd *cobra.Command, state *string) {
	cmd.Flags().StringVar(state, "state", "", "state directory of the agent whose journal is meant")
}

// journalDir finds the journal: in the directory that was named, the running agent's or the configured one.
func (a *app) journalDir(ctx context.Context, state string) (dir string, running *controlv1.Journal, err error) {
	patience, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := a.client().Status(patience, connect.NewRequest(&controlv1.StatusRequest{}))
	if err == nil {
		running = r.Msg.GetJournal()
	}
	if state == "" && running.GetDir() != "" {
		return running.GetDir(), running, nil
	}
	if state == "" {
		cfg, err := config.Load("")
		if err != nil {
			return "", nil, err
		}
		state = cfg.Agent.State
	}
	if state, err = filepath.Abs(state); err != nil {
		return "", nil, fmt.Errorf("find the state directory: %w", err)
	}
	dir = filepath.Join(state, journal.DirName)
	if running.GetDir() != dir {
		running = nil // another agent's
	}
	return dir, running, nil
}

// noJournal explains a directory without one.
func noJournal(err error) error {
	var empty *journal.EmptyError
	if errors.As(err, &empty) {
		return &failure{ExitNotFound, err.Error(), "name the agent's state directory with --state"}
	}
	return err
}

func (a *app) journalHead() *cobra.Command {
	var state string
	cmd := &cobra.Command{
		Use:   "head",
		Short: "Print the number and the hash of the last line, to be noted elsewhere",
		Long: `Print the number and the hash of the journal's last line. Whoever notes it where the root of this
machine cannot write can show later, with "bailey journal verify --head", that nothing up to that line was
changed, and that the end was not cut.`,
		Example: "  bailey journal head\n  bailey journal head --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, running, err := a.journalDir(cmd.Context(), state)
			if err != nil {
				return err
			}
			head := headJSON{Seq: running.GetSeq(), Hash: running.GetHead()}
			if head.Seq == 0 {
				r, err := journal.Verify(dir)
				if err != nil {
					return noJournal(err)
				}
				head = headJSON{Seq: r.Seq, Hash: r.Head}
			}
			if a.json {
				return a.printPlainJSON(head)
			}
			a.printf("%d %s\n", head.Seq, head.Hash)
			return nil
		},
	}
	stateFlag(cmd, &state)
	return cmd
}

type headJSON struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

func (a *app) printPlainJSON(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	_, err = fmt.Fprintf(a.Stdout, "%s\n", text)
	return err
}

func (a *app) journalVerify() *cobra.Command {
	var state string
	var heads []string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that nobody changed the journal",
		Long: `Read the whole journal and name every line that was changed, removed, added or moved. The exit
code is 1 if there is one. A cut end, or a journal that was written anew from some line on, shows only
against a hash that was noted before (see "bailey journal head"): each --head must be the hash of a line. While
the agent runs, its own head is compared as well.`,
		Example: `  bailey journal verify
  bailey journal verify --state /mnt/copy/of/state      # without an agent
  bailey journal verify --head 3f0c…                    # against a hash that was noted elsewhere`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var anchors []journal.Hash
			for _, text := range heads {
				h, err := journal.ParseHash(text)
				if err != nil {
					return &failure{ExitUsage, err.Error(), "give what `bailey journal head` printed last"}
				}
				anchors = append(anchors, h)
			}
			dir, running, err := a.journalDir(cmd.Context(), state)
			if err != nil {
				return err
			}
			if h, err := journal.ParseHash(running.GetHead()); err == nil {
				anchors = append(anchors, h)
			}
			r, err := journal.Verify(dir, anchors...)
			if err != nil {
				return noJournal(err)
			}
			if a.json {
				if err := a.printPlainJSON(r); err != nil {
					return err
				}
			} else {
				a.printVerified(&r)
			}
			if !r.OK {
				return silent(ExitFailed)
			}
			return nil
		},
	}
	stateFlag(cmd, &state)
	cmd.Flags().StringArrayVar(&heads, "head", nil, "a hash that must be a line's; can be repeated")
	return cmd
}

func (a *app) printVerified(r *journal.Report) {
	paint := a.paint()
	for _, t := range r.Torn {
		a.printf("%s: a crash cut the last line, %d bytes; the agent wrote that down\n", t.Segment, t.Bytes)
	}
	if r.Tail > 0 {
		a.printf("the last line is not complete (%d bytes): it is being written, or a crash cut it\n", r.Tail)
	}
	for _, f := range r.Faults {
		a.printf("%s\n", plain(f.String()))
	}
	if r.More > 0 {
		a.printf("and %d more\n", r.More)
	}
	if !r.OK {
		a.printf("%s: the journal in %s is not what the agent wrote\n", paint(red, "broken"), r.Dir)
		return
	}
	since := "complete since it began, " + r.Since.Local().Format(time.DateTime)
	if !r.Complete {
		since = fmt.Sprintf("complete since %s (line %d; what was before made room)", r.Since.Local().Format(time.DateTime), r.First)
	}
	a.printf("%s: %d lines in %s, %s\n", paint(green, "whole"), r.Lines, plural(r.Segments, "segment", "segments"), since)
	a.printf("head: %d %s\n", r.Seq, r.Head)
}

func (a *app) journalShow() *cobra.Command {
	var state, since string
	var kinds []string
	var follow bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the journal's lines",
		Long: `Print the journal's lines, oldest first. The kinds are
  agent, operator                         starts and stops; who changed what through the control API
  install, remove, grant, product         what products are, may and do
  deny, overridden                        denies that took effect, and that did not count
  health                                  parts of the agent that degraded or recovered
  unlock                                  tokens that were accepted or refused, and what they allowed is over
  segment, dropped, lost                  the journal itself
--since takes a duration back from now, a date or a time. With --json lines are printed as they are in the
file.`,
		Example: `  bailey journal show --since 24h
  bailey journal show --kind operator --kind grant
  bailey journal show --kind deny --json | jq .fields.file.path
  bailey journal show --follow`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := parseSince(since, time.Now())
			if err != nil {
				return &failure{ExitUsage, err.Error(), "write e.g. --since 24h, --since 2026-07-19 or --since 2026-07-19T04:09:00Z"}
			}
			for _, k := range kinds {
				if !slices.Contains(journal.Kinds(), journal.Kind(k)) {
					return &failure{ExitUsage, fmt.Sprintf("unknown kind %q", k), "see `bailey journal show --help`"}
				}
			}
			dir, _, err := a.journalDir(cmd.Context(), state)
			if err != nil {
				return err
			}
			return a.showJournal(cmd.Context(), dir, from, kinds, follow)
		},
	}
	stateFlag(cmd, &state)
	cmd.Flags().StringVar(&since, "since", "", "only lines since then: a duration, a date or a time")
	cmd.Flags().StringSliceVar(&kinds, "kind", nil, "only lines of this kind; can be repeated")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is written from now on")
	_ = cmd.RegisterFlagCompletionFunc("kind", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var out []string
		for _, k := range journal.Kinds() {
			out = append(out, string(k))
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}) // it fails only for a flag that is not there
	return cmd
}

// parseSince reads a duration before now, or a time; empty is the beginning.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if days, found := strings.CutSuffix(text, "d"); found {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is neither a duration nor a time", text)
}

// followInterval is how often new lines are looked for.
const followInterval = 500 * time.Millisecond

func (a *app) showJournal(ctx context.Context, dir string, since time.Time, kinds []string, follow bool) error {
	out := bufio.NewWriter(a.Stdout)
	reader := journal.NewReader(dir)
	paint := a.paint()
	each := func(l *journal.Line, text []byte) error {
		if l.Time.Before(since) || len(kinds) > 0 && !slices.Contains(kinds, string(l.Kind)) {
			return ctx.Err()
		}
		if a.json {
			_, _ = out.Write(text)
			return out.WriteByte('\n')
		}
		_, err := fmt.Fprintf(out, "%s  %s  %s\n", paint(faint, l.Time.Local().Format("2006-01-02 15:04:05.000")), paint(bold, fmt.Sprintf("%-10s", plain(string(l.Kind)))), journalText(l))
		return err
	}
	bad := func(f journal.Fault) { a.note("%s; see `bailey journal verify`", f) }
	tick := time.NewTicker(followInterval)
	defer tick.Stop()
	for {
		if err := reader.Read(each, bad); err != nil {
			return noJournal(err)
		}
		if err := out.Flush(); err != nil {
			return fmt.Errorf("print the journal: %w", err)
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
