package cli

import (
	"context"
	"fmt"

	"bailey/agent"
	"bailey/agent/product/contain"
	"bailey/agent/selftest"
)

// The agent starts this program again in more roles. They are no commands, because nobody types them and nothing of this
// package may run before them.
const containWord = "contain" // a product's containment; must run on the main goroutine

// inRole runs the role that the arguments name, if they name one, and returns its exit code.
func (p Process) inRole() (code int, ok bool) {
	if len(p.Args) == 0 {
		return 0, false
	}
	switch p.Args[0] {
	case containWord:
		return contain.Main(contain.SpecFD), true
	case agent.FetchWord:
		if err := agent.RunFetch(); err != nil {
			fmt.Fprintln(p.Stderr, "bailey:", err)
			return ExitFailed, true
		}
		return ExitOK, true
	case selftest.ProductWord:
		if err := selftest.RunProduct(context.Background()); err != nil {
			fmt.Fprintln(p.Stderr, "bailey:", err)
			return ExitFailed, true
		}
		return ExitOK, true
	}
	return 0, false
}
