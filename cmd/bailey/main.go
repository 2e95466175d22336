// Command bailey is the agent, and the command line of one machine. Everything is in internal/cli.
package main

import (
	"os"

	"bailey/internal/cli"
)

// version is set by the linker; empty means what the Go toolchain recorded.
var version string

func main() {
	os.Exit(cli.Main(cli.Process{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Version: version,
	}))
}
