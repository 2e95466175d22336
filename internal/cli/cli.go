// Package cli is the command line of Bailey: one file for each command. Commands talk to a running agent through its control
// API and know nothing of its inside; only `bailey agent` reaches it, `bailey history` reads what it recorded, and `bailey recover` works
// on the records of an agent that does not run. No command decides or remembers anything.
//
// Invariant: what a command prints on stdout is its result, in the human form or, with --json, in a form documented in
// docs/cli.md; everything else goes to stderr, and the exit code is one of those in exit.go.
package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	controlv1 "bailey/api/control/v1"
	"bailey/internal/command"

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
	dropped func() uint64
}

// Main runs the program and returns its exit code.
func Main(p Process) int {
	if code, ok := p.inRole(); ok {
		return code
	}
	a := &app{Process: p, flush: func() {}}
	ctx, stop := command.Interruptible(context.Background())
	defer stop()
	root := a.root()
	root.SetArgs(p.Args)
	err := root.ExecuteContext(ctx)
	if err != nil && !a.started {
		err = &failure{code: ExitUsage, message: err.Error(), hint: "see `" + command.HelpFor(root, p.Args) + "`"}
	}
	code := a.report(err)
	a.flush()
	return code
}

func (a *app) root() *cobra.Command {
	root := command.Root(&cobra.Command{
		Use:   "bailey",
		Short: "Security products in user mode: asked by the kernel, contained by the agent",
		Long: `Bailey lets security products decide about programs and files on this machine without
running in its kernel. "bailey agent" is the daemon; every other command is for its operator
and talks to a running agent over its control socket; "bailey history" and "bailey recover" need none.`,
		Example: `  bailey agent                            # run the agent in the foreground
  bailey product install ./allowlist      # install a product, after showing what it asks for
  bailey events exec verdict              # watch programs start and what was decided
  bailey history --since 10m              # what happened before, also when the agent is gone
  bailey doctor                           # what this machine lacks, and what to do about it`,
	}, a.Stdin, a.Stdout, a.Stderr, &a.started)
	run := a.Getenv("BAILEY_RUN")
	if run == "" {
		run = DefaultRun
	}
	root.PersistentFlags().StringVar(&a.run, "run", run, "run directory of the agent, else $BAILEY_RUN; its control socket is there")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.AddCommand(a.agent(), a.status(), a.doctor(), a.events(), a.history(), a.product(), a.cache(), a.brake(), a.rules(), a.update(), a.selftest(), a.version(),
		a.journal(), a.metrics(), a.top(), a.operator(), a.unlock(), a.lock(), a.boot(), a.recover())
	return root
}

// socket returns the path of the control socket that was chosen.
func (a *app) socket() string { return filepath.Join(a.run, controlv1.SocketName) }

// printf writes to stdout.
func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.Stdout, format, args...) }

// note writes a line for the operator to stderr.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.Stderr, "bailey: "+format+"\n", args...)
}
