// Command faulty is a product that misbehaves on demand: its settings say how it answers, how late, and what it breaks, and a
// file content.txt in its folder is content that its engine reads. The end-to-end tests, the incident suite and the benchmarks
// install it under several names. It uses the public sdk alone and runs in the same containment as every product, so what it
// cannot do no product can; where the sdk would keep it within the protocol it writes to descriptor 3 itself.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"bailey/sdk"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "faulty:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if role := flag("role"); role != "" {
		return playRole(role)
	}
	// What to subscribe to must be known before the first frame, so it comes by the command line; the rest by settings.
	b := &behaviour{}
	return sdk.Run(ctx, sdk.Product{
		Events:     kinds(flag("events")),
		Questions:  kinds(flag("questions")),
		OnReady:    b.ready,
		OnQuestion: b.question,
		OnEvent:    b.event,
		OnLost:     b.lost,
		Workers:    workers(flag("workers")),
	})
}

// flag returns the value of the argument --name=VALUE, empty if it is not there.
func flag(name string) string {
	for _, a := range os.Args[1:] {
		if v, ok := strings.CutPrefix(a, "--"+name+"="); ok {
			return v
		}
	}
	return ""
}

func kinds(list string) []sdk.Kind {
	words := map[string]sdk.Kind{
		"exec": sdk.Exec, "fork": sdk.Fork, "exit": sdk.Exit, "open": sdk.Open, "create": sdk.Create,
		"close_write": sdk.CloseWrite, "rename": sdk.Rename, "unlink": sdk.Unlink, "attrib": sdk.Attrib,
		"verdict": sdk.VerdictKind, "finding": sdk.FindingKind, "product": sdk.ProductKind, "health": sdk.HealthKind, "tamper": sdk.TamperKind,
	}
	var out []sdk.Kind
	for w := range strings.SplitSeq(list, ",") {
		if k, ok := words[w]; ok {
			out = append(out, k)
		}
	}
	return out
}

func workers(s string) int {
	if s == "inline" {
		return sdk.Inline
	}
	n, _ := strconv.Atoi(s)
	return n
}
