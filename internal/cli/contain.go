package cli

import "bailey/agent/product/contain"

// containWord is the argument with which the agent starts this program again as a product's containment. It is no command:
// nobody types it, and it must run on the main goroutine, before anything else of this program started.
const containWord = "contain"

// isContain reports whether this process is a containment helper.
func (p Process) isContain() bool { return len(p.Args) > 0 && p.Args[0] == containWord }

// runContain becomes the containment; it returns only when that failed or the product ended.
func runContain() int { return contain.Main(contain.SpecFD) }
