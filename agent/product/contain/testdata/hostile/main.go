// Command hostile is, by the name it is called with, the hostile product or the agent's contain command: static, for test
// binaries that are not.
package main

import (
	"os"

	"bailey/agent/product/contain/testdata/probe"
)

func main() {
	code, ok := probe.Role(os.Args)
	if !ok {
		code = 2
	}
	os.Exit(code)
}
