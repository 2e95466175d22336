package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"bailey/agent/config"
	"bailey/agent/event"
	"bailey/agent/product/link"
	"bailey/agent/recorder"
	productv1 "bailey/api/product/v1"
	"bailey/internal/boottime"

	"github.com/spf13/cobra"
)

// historyFlags say what of the recorded is wanted.
type historyFlags struct {
	since, until, process, state string
	kinds                        []string
	tree                         bool
	limit                        int
	query                        recorder.Query
}

func (a *app) history() *cobra.Command {
	var f historyFlags
	cmd := &cobra.Command{
		Use:   "history",
		Short: "Show what was recorded: events, and questions with their answers",
		Long: `Show what the flight recorder has kept, the oldest first. It is read from the agent's state
directory, so it also works when the agent is dead, and it goes back over restarts of the agent and
of the machine for as long as the recorder's bound (recorder.size) allows. Recorded is what
recorder.kinds in the configuration names, while products or readers of events want it.
Times are durations back from now (90s, 10m, 2h, 3d) or times of this machine's clock
(15:04, "2026-01-31 15:04:05", 2026-01-31T15:04:05Z). Events that are missing are told in their place; what
is damaged is passed over and told on stderr. With --json each line is one bailey.product.v1.Event, as
in bailey events, and what is missing is told on stderr.`,
		Example: `  bailey history --since 10m
  bailey history --kind verdict,finding --limit 20      # the last twenty
  bailey history --process 4711 --tree                  # what a process and its descendants did
  bailey history --since "2026-01-31 14:00" --until "2026-01-31 14:05" --json
  bailey history --state /mnt/rescued/var/lib/bailey    # of another machine's disk`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.NoArgs(cmd, args); err != nil {
				return err
			}
			return f.parse(time.Now())
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return a.showHistory(cmd.Context(), &f) },
	}
	cmd.Flags().StringVar(&f.since, "since", "", "only what happened since this time, or within this duration")
	cmd.Flags().StringVar(&f.until, "until", "", "only what happened until this time, or before this duration")
	cmd.Flags().StringSliceVar(&f.kinds, "kind", nil, "only these types, as in `bailey events`")
	cmd.Flags().StringVar(&f.process, "process", "", "only events of this process: PID, or PID:START when the pid was used again")
	cmd.Flags().BoolVar(&f.tree, "tree", false, "with --process: and of its descendants")
	cmd.Flags().IntVar(&f.limit, "limit", 0, "only the newest so many")
	cmd.Flags().StringVar(&f.state, "state", "", "state directory of the agent (default: the configuration's)")
	// It cannot fail: the flag is there.
	_ = cmd.RegisterFlagCompletionFunc("kind", a.completeKindList)
	return cmd
}

// completeKindList completes the last word of a list with commas.
func (a *app) completeKindList(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	var given []string
	before := ""
	if i := strings.LastIndexByte(typed, ','); i >= 0 {
		before = typed[:i+1]
		given = strings.Split(typed[:i], ",")
	}
	kinds, _ := a.completeKinds(nil, given, "")
	for i := range kinds {
		kinds[i] = before + kinds[i]
	}
	return kinds, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// parse makes the query of the flags.
func (f *historyFlags) parse(now time.Time) (err error) {
	q := &f.query
	if q.Since, err = parseWhen("--since", f.since, now); err != nil {
		return err
	}
	if q.Until, err = parseWhen("--until", f.until, now); err != nil {
		return err
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && q.Until.Before(q.Since) {
		return fmt.Errorf("--until (%s) is before --since (%s)", q.Until.Format(time.DateTime), q.Since.Format(time.DateTime))
	}
	for _, w := range f.kinds {
		k, err := event.ParseKind(w)
		if err != nil {
			return err
		}
		q.Kinds |= event.KindsOf(k)
	}
	if f.process != "" {
		if q.Process, err = parseProcess(f.process); err != nil {
			return err
		}
	}
	if q.Tree = f.tree; f.tree && f.process == "" {
		return errors.New("--tree shows the descendants of one process: name it with --process")
	}
	if f.limit < 0 {
		return fmt.Errorf("--limit %d is negative", f.limit)
	}
	return nil
}

// stateDir is where the recorder's directory is.
func (a *app) stateDir(f *historyFlags) string {
	if f.state != "" {
		return f.state
	}
	cfg, err := config.Load("")
	if err != nil {
		cfg = config.Default()
		a.note("the configuration cannot be read, so this is the state in %s (another one is named by --state)", cfg.Agent.State)
	}
	return cfg.Agent.State
}

func (a *app) showHistory(ctx context.Context, f *historyFlags) error {
	dir := filepath.Join(a.stateDir(f), recorder.DirName)
	r, err := recorder.Open(recorder.ReaderConfig{
		Dir: dir, Decoder: new(link.Codec), Query: f.query, Boot: presentBoot(), Zero: boottime.Zero(),
	})
	if errors.Is(err, fs.ErrNotExist) {
		return &failure{ExitNotFound, "nothing is recorded in " + dir, "name the agent's state directory with --state; an agent records from its start on, unless recorder.enabled is false"}
	}
	if err != nil {
		return err
	}
	defer r.Close()
	p := &historyPrinter{app: a, out: bufio.NewWriter(a.Stdout), line: newEventLine(a.paint(), false)}
	p.line.clock = "2006-01-02 15:04:05.000"
	n, err := p.all(ctx, r, f.limit)
	if err = errors.Join(err, p.out.Flush()); err != nil {
		return err
	}
	a.noteSkipped(r.Skipped())
	if n == 0 {
		a.note("nothing recorded in %s is asked for", dir)
	}
	return nil
}

// presentBoot is this boot's id; empty where the kernel does not say.
func presentBoot() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// noted is how many damaged pieces are told one by one.
const noted = 10

func (a *app) noteSkipped(skips []recorder.Skip) {
	for i, s := range skips {
		if i == noted {
			a.note("and %d more pieces like these", len(skips)-noted)
			return
		}
		a.note("passed over: %s", s)
	}
}

// historyPrinter writes records.
type historyPrinter struct {
	*app
	out  *bufio.Writer
	line *eventLine
}

// all prints what r has, of it only the newest limit, and returns how many.
func (p *historyPrinter) all(ctx context.Context, r *recorder.Reader, limit int) (n int, err error) {
	var newest []*recorder.Record // the last limit, oldest at n % limit
	for {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return n, err
		}
		switch {
		case p.json && rec.Type != recorder.Event: // not a line, so not one of limit
			if _, err := p.text(rec); err != nil {
				return n, err
			}
			continue
		case limit == 0:
			if err := p.print(rec); err != nil {
				return n, err
			}
		case len(newest) < limit:
			newest = append(newest, rec)
		default:
			newest[n%limit] = rec
		}
		n++
	}
	for i := range newest {
		if err := p.print(newest[(n+i)%len(newest)]); err != nil {
			return n, err
		}
	}
	return n, nil
}

func (p *historyPrinter) print(r *recorder.Record) error {
	text, err := p.text(r)
	if err != nil {
		return err
	}
	if _, err := p.out.Write(text); err != nil {
		return fmt.Errorf("print history: %w", err)
	}
	return nil
}

func (p *historyPrinter) text(r *recorder.Record) ([]byte, error) {
	if r.Type != recorder.Event {
		kind, what := noteText(r)
		if p.json {
			if r.Type == recorder.Loss {
				p.note("%s: %s", r.Wall.Format(p.line.clock), what)
			}
			return nil, nil
		}
		return fmt.Appendf(nil, "%s  %7s  %5s  %s  %s\n", p.line.head(r.Wall, kind), "-", "-", p.line.paint(faint, "agent"), what), nil
	}
	var e productv1.Event
	if err := e.UnmarshalVT(r.Payload); err != nil {
		return nil, fmt.Errorf("read a recorded event: %w", err)
	}
	if p.json {
		return eventJSON(&e)
	}
	p.line.boot = r.Wall.Add(-time.Duration(r.Time))
	return p.line.format(&e, nil), nil
}

// noteText says what a record that is no event means.
func noteText(r *recorder.Record) (kind, what string) {
	switch r.Type {
	case recorder.Start:
		return "start", "the agent started (" + plain(r.Version) + ")"
	case recorder.End:
		return "end", "the agent ended as it was told to"
	}
	why := map[string]string{
		recorder.CauseSlow: "they came faster than they could be taken", recorder.CauseDisk: "the disk took none",
		recorder.CauseOversized: "too large for a record",
	}[r.Cause]
	if why == "" {
		why = plain(r.Cause)
	}
	return "lost", fmt.Sprintf("%d events are missing here: %s", r.Lost, why)
}
