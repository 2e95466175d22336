// Package command is what both command lines have in common: how a program is interrupted, how a mistaken command line finds its help, and how
// a value is printed. It knows no command.
package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Interruptible returns a context that SIGINT and SIGTERM end; a second signal ends the program at once, because then the
// first has restored the default.
func Interruptible(parent context.Context) (context.Context, func()) {
	ctx, stop := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	unhook := context.AfterFunc(ctx, stop)
	return ctx, func() { unhook(); stop() }
}

// Root completes the program's own command: it reads and writes what it is given, and leaves it to the program to report errors. started is set
// once the arguments were understood and a command runs.
func Root(root *cobra.Command, in io.Reader, out, err io.Writer, started *bool) *cobra.Command {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.PersistentPreRunE = func(*cobra.Command, []string) error { *started = true; return nil }
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(err)
	root.CompletionOptions.HiddenDefaultCmd = false
	return Group(root)
}

// Group completes a command that only has commands below it.
func Group(cmd *cobra.Command, children ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.AddCommand(children...)
	return cmd
}

// HelpFor names the help that fits a mistaken command line.
func HelpFor(root *cobra.Command, args []string) string {
	if cmd, _, err := root.Find(args); err == nil && cmd != nil {
		return cmd.CommandPath() + " --help"
	}
	return root.Name() + " --help"
}

// Report is what a program says of an error on stderr: one sentence with its remedy.
func Report(message, hint string) string {
	if hint == "" {
		return message
	}
	return message + ": " + hint
}

// PrintJSON prints a value on one line.
func PrintJSON(out io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode as JSON: %w", err)
	}
	if _, err := fmt.Fprintf(out, "%s\n", data); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
