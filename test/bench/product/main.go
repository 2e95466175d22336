// Command product allows everything it is asked: what it costs is what asking costs. It looks at nothing.
package main

import (
	"context"
	"fmt"
	"os"

	"bailey/sdk"
)

func main() {
	answer := sdk.Allow
	err := sdk.Run(context.Background(), sdk.Product{
		OnReady: func(s *sdk.Session) error {
			if s.Settings()["cache"] == "file" {
				answer = sdk.Allow.CacheFile()
			}
			return nil
		},
		Questions:  []sdk.Kind{sdk.Exec, sdk.Open},
		OnQuestion: func(context.Context, *sdk.Question) sdk.Answer { return answer },
		Workers:    sdk.Inline,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
