package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	controlv1 "bailey/api/control/v1"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
)

func (a *app) productRehearse() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "rehearse FOLDER",
		Short: "Try a release against this machine's recent past, without installing it",
		Long: `Start the release in FOLDER in a containment of its own, beside the installed one, and ask it what this
machine's products were asked lately, with the files where they are still the same, and about every file that the machine
cannot do without. Nothing that it answers counts, and it runs only when nobody else wants the processor. It does not pass if it
crashes, hangs, breaks the protocol, needs more than it is granted, denies a critical file, or denies more that was
not denied before than the brake would let it. It takes about a minute at most.`,
		Example: `  bailey product rehearse ./acme-7.2
  bailey product rehearse ./acme-7.2 --yes --json | jq .reasons`,
		Args: exactly(1, "name one folder that holds a manifest.toml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, plan, err := a.approve(cmd.Context(), args[0], yes, "Start it with these grants? [y/N] ", "nothing was started")
			if err != nil {
				return err
			}
			r, err := a.rehearse(cmd.Context(), path, plan.GetHash())
			if err != nil {
				return err
			}
			if a.json {
				err = a.printJSON(r)
			} else {
				a.printRehearsal(r)
			}
			if err == nil && !r.GetPassed() {
				err = silent(ExitFailed)
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "approve what the manifest requests")
	return cmd
}

// approve shows what a release asks for, unless yes says that the operator knows, and returns its folder and plan.
func (a *app) approve(ctx context.Context, folder string, yes bool, question, declined string) (path string, plan *controlv1.ProductPlanResponse, err error) {
	if !yes && !isTerminal(a.Stdin) {
		return "", nil, &failure{ExitUsage, "this needs an approval, and there is no terminal to ask on", "look at the folder's manifest.toml, then approve what it requests with --yes"}
	}
	if path, err = filepath.Abs(folder); err != nil {
		return "", nil, fmt.Errorf("find %s: %w", folder, err)
	}
	r, err := a.client().ProductPlan(ctx, connect.NewRequest(&controlv1.ProductPlanRequest{Path: path}))
	if err != nil {
		return "", nil, err
	}
	if yes {
		return path, r.Msg, nil
	}
	a.showPlan(r.Msg)
	ok, err := a.ask(question)
	if err == nil && !ok {
		err = &failure{ExitFailed, declined, ""}
	}
	return path, r.Msg, err
}

// rehearse has a release tried, showing how far it is.
func (a *app) rehearse(ctx context.Context, path, hash string) (*controlv1.Rehearsal, error) {
	s, err := a.client().ProductRehearse(ctx, connect.NewRequest(&controlv1.ProductRehearseRequest{Path: path, Approved: hash}))
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }()
	shows := isTerminal(a.Stderr)
	var report *controlv1.Rehearsal
	for s.Receive() {
		report = s.Msg().GetReport()
		if p := s.Msg().GetProgress(); shows && p != nil {
			fmt.Fprintf(a.Stderr, "\r\x1b[Krehearsing: %s %d of %d", p.GetStage(), p.GetDone(), p.GetOf())
		}
	}
	if shows {
		fmt.Fprint(a.Stderr, "\r\x1b[K")
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if report == nil {
		return nil, &failure{ExitFailed, "the agent ended before the rehearsal was over", "see: bailey status"}
	}
	return report, nil
}

// verdictOn is the first sentence about a rehearsal.
func verdictOn(r *controlv1.Rehearsal) string {
	word := "passed"
	if !r.GetPassed() {
		word = "failed"
	}
	against := "it is not installed yet"
	if r.GetInstalled() != "" {
		against = "compared with " + plain(r.GetInstalled())
	}
	return fmt.Sprintf("%s %s %s its rehearsal in %s (%s)", r.GetProduct(), plain(r.GetRelease()), word, span(r.GetTook()), against)
}

func (a *app) printRehearsal(r *controlv1.Rehearsal) {
	paint := a.paint()
	c := green
	if !r.GetPassed() {
		c = red
	}
	a.printf("%s\n", paint(c, verdictOn(r)))
	for _, reason := range r.GetReasons() {
		a.printf("  - %s\n", plain(reason))
	}
	var t table
	t.row("asked", fmt.Sprintf("%d of the past, %d about critical files", r.GetRecorded(), r.GetCritical()))
	t.row("", fmt.Sprintf("%d of the common corpus, %d about good files, %d of its own tests", r.GetCorpus(), r.GetGood(), r.GetOwn()))
	t.row("not asked", fmt.Sprintf("%d whose file has changed, %d of the corpus that are not here, %d for want of time", r.GetChanged(), r.GetAbsent(), r.GetUnasked()))
	t.row("told", fmt.Sprintf("%d events", r.GetEvents()))
	t.row("answered", fmt.Sprintf("%d, %d denied", r.GetAnswered(), r.GetDenied()))
	t.row("latency", fmt.Sprintf("half within %s, 99 %% within %s, the slowest %s, at idle priority", span(r.GetLatencyP50()), span(r.GetLatencyP99()), span(r.GetLatencyMax())))
	t.row("cost", fmt.Sprintf("%s of %s of memory, %s of processor time", size(r.GetMemory()), size(r.GetMemoryLimit()), span(r.GetCpu())))
	for _, n := range r.GetNotes() {
		t.row("note", plain(n))
	}
	t.print(a.Stdout, "")
	a.printDifferences("denied now, and not before", r.GetNewDeny())
	a.printDifferences("allowed now, and not before", r.GetNewAllow())
	if log := strings.TrimSpace(r.GetLog()); log != "" && !r.GetPassed() {
		a.printf("the end of its log:\n")
		for line := range strings.Lines(log) {
			a.printf("  %s\n", plain(strings.TrimRight(line, "\n")))
		}
	}
}

func (a *app) printDifferences(what string, d *controlv1.RehearsalDifferences) {
	if d.GetFiles() == 0 {
		return
	}
	a.printf("%s: files %d, critical %d, good ones of the corpus %d, others of packages %d\n", what, d.GetFiles(), d.GetCritical(), d.GetGood(), d.GetPackaged())
	for _, e := range d.GetExamples() {
		a.printf("  %s %s", e.GetAsked(), plain(e.GetFile()))
		if e.GetBy() != "" {
			a.printf(" by %s", plain(e.GetBy()))
		}
		a.printf(" (before: %s", e.GetBefore())
		if e.GetSource() != "" {
			a.printf("; %s", e.GetSource())
		}
		a.printf(")\n")
	}
	if left := int(d.GetFiles()) - len(d.GetExamples()); left > 0 {
		a.printf("  and %d more\n", left)
	}
}
