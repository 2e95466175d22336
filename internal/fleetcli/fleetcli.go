// Package fleetcli is the command line bailey-fleet: what publishes releases to many machines. It is a thin layer over update/publish, with
// one file for each command. It decides nothing that the package below does not check again.
//
// Invariant: what a command prints on stdout is its result, for people or with --json as one object on one line; everything else goes to
// stderr, and the exit code is one of those in exit.go.
package fleetcli

import (
	"context"
	"fmt"
	"io"
	"time"

	"bailey/internal/buildinfo"
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
	Now     func() time.Time // nil means time.Now
	Version string           // of the release; empty: what the toolchain recorded
}

// app is one run of the program.
type app struct {
	Process
	json    bool // --json
	started bool // the arguments were understood and a command runs
}

// Main runs the program and returns its exit code.
func Main(p Process) int {
	if p.Now == nil {
		p.Now = time.Now
	}
	a := &app{Process: p}
	ctx, stop := command.Interruptible(context.Background())
	defer stop()
	root := a.root()
	root.SetArgs(p.Args)
	err := root.ExecuteContext(ctx)
	if err != nil && !a.started {
		err = &failure{code: ExitUsage, message: err.Error(), hint: "see `" + command.HelpFor(root, p.Args) + "`"}
	}
	return a.report(err)
}

func (a *app) root() *cobra.Command {
	root := command.Root(&cobra.Command{
		Use:   "bailey-fleet",
		Short: "Publish releases of products to machines that run Bailey",
		Long: `A repository holds releases as static files that any web server, share or stick can hand on, because machines
believe signatures and nothing else. "bailey-fleet repo" makes repositories and changes them.`,
		Example: `  bailey-fleet repo init --dir ./repo --keys ./keys
  bailey-fleet repo vendor add acme/edr/content --dir ./repo --keys ./keys --public acme.key.pub
  bailey-fleet repo publish rules.tar.zst --dir ./repo --keys ./keys
  bailey-fleet repo verify --dir ./repo --root ./keys/root.json`,
	}, a.Stdin, a.Stdout, a.Stderr, &a.started)
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.AddCommand(a.repo(), a.version())
	return root
}

// printf writes to stdout.
func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.Stdout, format, args...) }

// note writes a line for the operator to stderr.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.Stderr, "bailey-fleet: "+format+"\n", args...)
}

// print writes a result: as JSON if that is asked for, or as people calls it.
func (a *app) print(v any, people func()) error {
	if !a.json {
		people()
		return nil
	}
	return command.PrintJSON(a.Stdout, v)
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this binary",
		Example: "  bailey-fleet version --json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			info := buildinfo.Release(a.Version)
			return a.print(info, func() { a.printf("bailey-fleet %s, %s, %s\n", info.Version, info.Go, info.Platform) })
		},
	}
}
