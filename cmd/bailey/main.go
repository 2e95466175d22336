// Command bailey is the agent, and the command line of one machine. This file holds nothing but the wiring; everything is in
// agent and internal/cli.
package main

import (
	"context"
	"os"

	"bailey/agent"
	"bailey/internal/cli"
)

// version is set by the linker; empty means what the Go toolchain recorded.
var version string

func main() {
	os.Exit(cli.Main(cli.Process{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Version: version,
		Agent: runAgent,
	}))
}

func runAgent(ctx context.Context, o cli.AgentOptions) error {
	a, err := agent.New(agent.Options{Config: o.Config, Log: o.Log, Build: o.Build, Args: o.Args, Dropped: o.Dropped, Parent: o.Keeper})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}
