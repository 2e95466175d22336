// Command bailey-fleet publishes releases to many machines. This file holds nothing but the wiring; everything is in internal/fleetcli.
package main

import (
	"os"

	"bailey/internal/fleetcli"
)

// version is set by the linker; empty means what the Go toolchain recorded.
var version string

func main() {
	os.Exit(fleetcli.Main(fleetcli.Process{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Version: version,
	}))
}
