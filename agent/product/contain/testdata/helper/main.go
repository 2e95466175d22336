// Command helper is the agent's contain command alone, built static for tests that are not.
package main

import (
	"os"

	"bailey/agent/product/contain"
)

func main() { os.Exit(contain.Main(contain.SpecFD)) }
