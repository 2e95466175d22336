package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"bailey/agent/selftest"

	"github.com/spf13/cobra"
)

func (a *app) selftest() *cobra.Command {
	return &cobra.Command{
		Use:   "selftest",
		Short: "Drive the whole path for real, on a scratch filesystem",
		Long: `Start a second agent that watches nothing but a scratch filesystem, install a product in it, and check
that an event is seen, an unknown program is refused, a cached verdict is not asked again, a late
product is not waited for, and a product can read what it is asked about. It can run beside the
machine's agent. A line for each check; the exit code is 1 if one fails.`,
		Example: "  sudo bailey selftest\n  sudo bailey selftest --json",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.runSelftest(cmd.Context()) },
	}
}

func (a *app) runSelftest(ctx context.Context) error {
	if err := canAsk(); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	// A reader that leaves must not end this process before it has cleaned up: with this, printing fails instead.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	defer signal.Stop(pipe)
	failed := 0
	var printing error
	err = selftest.Run(ctx, selftest.Options{Program: program, Report: func(r selftest.Result) {
		if !r.OK {
			failed++
		}
		if perr := a.printResult(r); perr != nil {
			printing = perr
		}
	}})
	switch {
	case failed > 0:
		return silent(ExitFailed)
	case err != nil:
		return err
	}
	return printing
}

func (a *app) printResult(r selftest.Result) error {
	if a.json {
		return a.printValue(r)
	}
	paint := a.paint()
	word, colour := "ok", green
	if !r.OK {
		word, colour = "failed", red
	}
	_, err := fmt.Fprintf(a.Stdout, "%s  %-26s %10s  %s\n", paint(colour, fmt.Sprintf("%-6s", word)), r.Name, span(uint64(r.Took)), plain(r.Detail))
	return err
}
