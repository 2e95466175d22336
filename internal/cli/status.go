package cli

import (
	"fmt"
	"strings"

	controlv1 "bailey/api/control/v1"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
)

func (a *app) status() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show what the agent is doing: questions, products, sensors, health",
		Example: "  bailey status\n  bailey status --json | jq .questions.by_reason",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.client().Status(cmd.Context(), connect.NewRequest(&controlv1.StatusRequest{}))
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(r.Msg)
			}
			a.printStatus(r.Msg)
			return nil
		},
	}
}

func (a *app) printStatus(s *controlv1.StatusResponse) {
	paint := a.paint()
	heading := func(text string) { a.printf("\n%s\n", paint(bold, text)) }

	var t table
	t.row("agent", fmt.Sprintf("%s, pid %d, up %s, kernel %s", s.GetVersion(), s.GetPid(), span(s.GetUptime()), s.GetKernel()))
	t.row("state", s.GetStateDir())
	t.row("run", s.GetRunDir())
	watch := "every local filesystem"
	if len(s.GetWatch()) > 0 {
		watch = strings.Join(s.GetWatch(), ", ")
	}
	t.row("watches", watch)
	t.row("keeper", keeperLine(s.GetKeeper()))
	t.row("guard", guardLine(s.GetGuard()))
	if s.GetBoot() != nil {
		t.row("boot", bootLine(s.GetBoot()))
		if leave := s.GetBoot().GetLeave(); leave != "" {
			t.row("", "→ "+plain(leave))
		}
	}
	if h := s.GetGuard().GetHost(); h != "" {
		t.row("host id", h)
	}
	t.print(a.Stdout, "")

	q := s.GetQuestions()
	heading("Questions")
	t = table{}
	t.row("asked", fmt.Sprintf("%d (%s)", q.GetAsked(), counts(q.GetByKind())))
	t.row("verdicts", fmt.Sprintf("allow %d, deny %d, waiting %d", q.GetAllowed(), q.GetDenied(), q.GetInFlight()))
	t.row("decided by", counts(q.GetByReason()))
	t.row("products took", fmt.Sprintf("half within %s, 99 %% within %s, %d too late", span(q.GetLatencyP50()), span(q.GetLatencyP99()), q.GetLateAnswers()))
	if c := s.GetCache(); c.GetEnabled() {
		t.row("cache", fmt.Sprintf("%d verdicts, %d kernel marks, %d hits", c.GetEntries(), c.GetMarks(), c.GetHits()))
	} else {
		t.row("cache", "off")
	}
	t.print(a.Stdout, "  ")

	heading("Products")
	if len(s.GetProducts()) == 0 {
		a.printf("  none; install one with `bailey product install FOLDER`\n")
	} else {
		a.productTable(s.GetProducts()).print(a.Stdout, "  ")
	}

	heading("Sensors")
	t = table{}
	for _, sensor := range s.GetSensors() {
		t.row(sensor.GetName(), counts(sensor.GetCounters()))
	}
	t.print(a.Stdout, "  ")

	if j := s.GetJournal(); j.GetSeq() > 0 {
		heading("Journal")
		t = table{}
		t.row("head", fmt.Sprintf("%d %s", j.GetSeq(), j.GetHead()))
		t.row("lines", fmt.Sprintf("%d written, %d summed up, %d lost", j.GetLines(), j.GetSummedUp(), j.GetLost()))
		t.print(a.Stdout, "  ")
	}

	heading("Health")
	if len(s.GetHealth()) == 0 {
		a.printf("  nothing reported\n")
	}
	a.healthTable(s.GetHealth())
}

// healthTable prints entries with their remedies below them.
func (a *app) healthTable(entries []*controlv1.HealthEntry) {
	paint := a.paint()
	var t table
	for _, e := range entries {
		status := cell{e.GetStatus(), func(s string) string { return paint(statusColour(s), s) }}
		t.row(status, plain(e.GetComponent()), plain(e.GetSummary()))
		if e.GetRemedy() != "" {
			t.row("", "", "→ "+plain(e.GetRemedy()))
		}
	}
	t.print(a.Stdout, "  ")
}

// productTable lists products with what an operator compares between them.
func (a *app) productTable(products []*controlv1.Product) *table {
	paint := a.paint()
	word := func(s string) cell { return cell{s, func(s string) string { return paint(statusColour(s), s) }} }
	t := &table{}
	t.row("NAME", "RELEASE", "STATE", "AUTHORITY", "RESTARTS", "ANSWERED", "DENIED", "MISSED", "P99", "LOST", "MEMORY", "")
	for _, p := range products {
		c := p.GetCounters()
		t.row(p.GetName(), plain(p.GetRelease()), word(p.GetState()), word(p.GetAuthority()), p.GetRestarts(),
			c.GetAnswers(), c.GetDenies(), c.GetMisses(), span(c.GetLatencyP99()), c.GetLost(), size(c.GetMemory()), plain(why(p)))
	}
	return t
}

func keeperLine(k *controlv1.Keeper) string {
	if k == nil {
		return "none: when this agent ends, everything is allowed"
	}
	line := fmt.Sprintf("pid %d, %d questions bypassed, %d restarts", k.GetPid(), k.GetBypassed(), k.GetRestarts())
	if k.GetBypassing() {
		line += ", answering now because the agent does not"
	}
	return line
}
