// Package cli is the command line of Bailey: one file for each command. Commands talk to a running agent through its control
// API and know nothing of its inside; only `bailey agent` reaches it. No command decides or remembers anything.
//
// Invariant: what a command prints on stdout is its result, in the human form or, with --json, in a form documented in
// docs/cli.md; everything else goes to stderr, and the exit code is one of those in exit.go.
package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"bailey/agent/control"

	"github.com/spf13/cobra"
)

// Process is what a command gets from its surroundings.
type Process struct {
	Args    []string
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Getenv  func(string) string
	Version string // of the release; empty: what the toolchain recorded
	Agent   Agent  // what `bailey agent` starts
}

// DefaultRun is the run directory of the machine's own agent.
const DefaultRun = "/run/bailey"

// app is one run of the program.
type app struct {
	Process
	run     string // --run
	json    bool   // --json
	started bool   // the arguments were understood and a command runs
	flush   func() // hands stderr what is still held back
}

// Main runs the program and returns its exit code.
func Main(p Process) int {
	if code, ok := p.inRole(); ok {
		return code
	}
	a := &app{Process: p, flush: func() {}}
	ctx, stop := interruptible(context.Background())
	defer stop()
	root := a.root()
	root.SetArgs(p.Args)
	err := root.ExecuteContext(ctx)
	if err != nil && !a.started {
		err = &failure{code: ExitUsage, message: err.Error(), hint: "see `" + helpFor(root, p.Args) + "`"}
	}
	code := a.report(err)
	a.flush()
	return code
}

// interruptible returns a context that SIGINT and SIGTERM end; a second signal ends the program at once, because then the
// first has restored the default.
func interruptible(parent context.Context) (context.Context, func()) {
	ctx, stop := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	unhook := context.AfterFunc(ctx, stop)
	return ctx, func() { unhook(); stop() }
}

// helpFor names the help that fits a mistaken command line.
func helpFor(root *cobra.Command, args []string) string {
	if cmd, _, err := root.Find(args); err == nil && cmd != nil {
		return cmd.CommandPath() + " --help"
	}
	return "bailey --help"
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "bailey",
		Short: "Security products in user mode: asked by the kernel, contained by the agent",
		Long: `Bailey lets security products decide about programs and files on this machine without
running in its kernel. "bailey agent" is the daemon; every other command is for its operator
and talks to a running agent over its control socket.`,
		Example: `  bailey agent                            # run the agent in the foreground
  bailey product install ./allowlist      # install a product, after showing what it asks for
  bailey events exec verdict              # watch programs start and what was decided
  bailey doctor                           # what this machine lacks, and what to do about it`,
		Args:              cobra.NoArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(*cobra.Command, []string) error { a.started = true; return nil },
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	root.CompletionOptions.HiddenDefaultCmd = false
	run := a.Getenv("BAILEY_RUN")
	if run == "" {
		run = DefaultRun
	}
	root.PersistentFlags().StringVar(&a.run, "run", run, "run directory of the agent, else $BAILEY_RUN; its control socket is there")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.AddCommand(a.agent(), a.status(), a.doctor(), a.events(), a.product(), a.cache(), a.selftest(), a.version())
	return root
}

// socket returns the path of the control socket that was chosen.
func (a *app) socket() string { return filepath.Join(a.run, control.SocketName) }

// printf writes to stdout.
func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.Stdout, format, args...) }

// note writes a line for the operator to stderr.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.Stderr, "bailey: "+format+"\n", args...)
}

// group is a command that only has commands below it.
func group(cmd *cobra.Command, children ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.AddCommand(children...)
	return cmd
}
