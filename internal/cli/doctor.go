package cli

import (
	"context"
	"fmt"
	"os"
	"slices"

	"bailey/agent/health"
	"bailey/agent/sensor/probe"
	controlv1 "bailey/api/control/v1"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
)

// check is one thing that doctor looked at.
type check struct {
	Name     string `json:"name"`
	Status   string `json:"status"` // ok, absent (and not missed), degraded, failed, unknown
	Required bool   `json:"required"`
	Summary  string `json:"summary"`
	Remedy   string `json:"remedy,omitempty"`
}

// diagnosis is what doctor prints with --json.
type diagnosis struct {
	OK     bool    `json:"ok"` // nothing required is missing
	Agent  bool    `json:"agent"`
	Checks []check `json:"checks"`
}

func (a *app) doctor() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine lacks for Bailey, and what to do about it",
		Long: `Probe what this machine's kernel and set-up offer, and show what a running agent reports of
itself, each with its remedy. The exit code is 1 if something required is missing.`,
		Example: "  sudo bailey doctor\n  sudo bailey doctor --json | jq '.checks[] | select(.status != \"ok\")'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := a.diagnose(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				err = a.printValue(d)
			} else {
				a.printDiagnosis(d)
			}
			if err == nil && !d.OK {
				err = silent(ExitFailed)
			}
			return err
		},
	}
}

func (d *diagnosis) has(name, status string) bool {
	return slices.ContainsFunc(d.Checks, func(c check) bool { return c.Name == name && c.Status == status })
}

// diagnose collects this machine's checks and the agent's. That no agent runs is a finding and not an error.
func (a *app) diagnose(ctx context.Context) (diagnosis, error) {
	d := diagnosis{OK: true, Checks: machineChecks()}
	r, err := a.client().Health(ctx, connect.NewRequest(&controlv1.HealthRequest{}))
	if err != nil {
		f := a.explain(err)
		d.Checks = append(d.Checks, check{Name: "agent", Status: "degraded", Summary: f.message, Remedy: f.hint})
	} else {
		d.Agent = true
		d.Checks = append(d.Checks, check{Name: "agent", Status: "ok", Summary: "an agent serves " + a.socket()})
		for _, e := range r.Msg.GetEntries() {
			if d.has(e.GetComponent(), e.GetStatus()) {
				continue // the agent found what was found here
			}
			d.Checks = append(d.Checks, check{Name: "agent: " + e.GetComponent(), Status: e.GetStatus(), Required: e.GetStatus() == "failed", Summary: e.GetSummary(), Remedy: e.GetRemedy()})
		}
	}
	for _, c := range d.Checks {
		if c.Required && c.Status != "ok" {
			d.OK = false
		}
	}
	return d, nil
}

// machineChecks looks at this machine without an agent.
func machineChecks() []check {
	root := check{Name: "root", Status: "ok", Required: true, Summary: "this process has root's privileges, as the agent needs"}
	if uid := os.Geteuid(); uid != 0 {
		root.Status, root.Summary, root.Remedy = "failed", fmt.Sprintf("this is uid %d, so not everything can be told", uid), rootHint()
	}
	checks := []check{root}
	for _, f := range probe.All() {
		checks = append(checks, featureCheck(f, f.Probe()))
	}
	return checks
}

// featureCheck says what a probe's answer means. A feature that Bailey does without at no loss is told of and not complained
// about.
func featureCheck(f probe.Feature, r probe.Result) check {
	c := check{Name: f.Name, Status: "ok", Required: f.Missing == health.Failed, Summary: f.Gives}
	switch {
	case r.Supported:
	case probe.Forbidden(r.Err):
		c.Status, c.Required, c.Summary = "unknown", false, "only root can tell: "+f.Gives
	case f.Missing == health.OK:
		c.Status, c.Summary = "absent", fmt.Sprintf("not missed: %s (%v)", f.Gives, r.Err)
	default:
		c.Status, c.Remedy = f.Missing.String(), f.Remedy
		c.Summary = fmt.Sprintf("not available (%v), so not: %s", r.Err, f.Gives)
	}
	return c
}

func (a *app) printDiagnosis(d diagnosis) {
	paint := a.paint()
	var t table
	missing := 0
	for _, c := range d.Checks {
		t.row(cell{c.Status, func(s string) string { return paint(statusColour(s), s) }}, c.Name, plain(c.Summary))
		if c.Remedy != "" {
			t.row("", "", "→ "+plain(c.Remedy))
		}
		if c.Required && c.Status != "ok" {
			missing++
		}
	}
	t.print(a.Stdout, "")
	if missing > 0 {
		a.printf("\n%s\n", paint(red, plural(missing, "required thing is", "required things are")+" missing"))
	}
}
