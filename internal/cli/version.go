package cli

import (
	"bailey/internal/buildinfo"
	"bailey/internal/command"

	"github.com/spf13/cobra"
)

// build returns the running build, with the version that the release process gave it.
func (a *app) build() buildinfo.Info { return buildinfo.Release(a.Version) }

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this binary",
		Example: "  bailey version\n  bailey version --json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			info := a.build()
			if a.json {
				return a.printValue(info)
			}
			a.printf("bailey %s", info.Version)
			if info.Revision != "" {
				a.printf(" (%.12s)", info.Revision)
			}
			if info.Dirty {
				a.printf(" with changes")
			}
			a.printf(", %s, %s\n", info.Go, info.Platform)
			return nil
		},
	}
}

// printValue prints a plain value as JSON on one line.
func (a *app) printValue(v any) error { return command.PrintJSON(a.Stdout, v) }
