// Command hello is the smallest useful product: it refuses to run anything below /tmp and counts the programs that start.
// It is the example that docs refer to, not a security product to rely on.
package main

import (
	"context"
	"log"
	"strings"

	"bailey/sdk"
)

func main() {
	if err := sdk.Run(context.Background(), hello()); err != nil {
		log.Fatal(err)
	}
}

func hello() sdk.Product {
	started := 0
	return sdk.Product{
		Name:      "hello",
		Events:    []sdk.Kind{sdk.Exec},
		OnEvent:   func(e *sdk.Event) { started++; log.Printf("%d: %s", started, e.GetProcess().GetExecutable().GetPath()) },
		Questions: []sdk.Kind{sdk.Exec},
		OnQuestion: func(_ context.Context, q *sdk.Question) sdk.Answer {
			if !strings.HasPrefix(q.File.GetPath(), "/tmp/") {
				return sdk.Allow.CacheFile()
			}
			if err := q.Report(sdk.Finding{Rule: "exec-below-tmp", Title: "program below /tmp", Severity: sdk.Low, Action: sdk.Denied}); err != nil {
				log.Print(err)
			}
			return sdk.Deny
		},
	}
}
