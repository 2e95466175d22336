// Command survivor is, by the name it is called with, a product that accounts for all that it is told, or the agent's
// contain command: static, for test binaries that are not.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"bailey/agent/product/contain"
	"bailey/sdk"
)

func main() {
	if filepath.Base(os.Args[0]) == "helper" {
		os.Exit(contain.Main(contain.SpecFD))
	}
	var a account
	err := sdk.Run(context.Background(), sdk.Product{
		Name: "survivor", Events: []sdk.Kind{sdk.Exec}, OnEvent: a.event, OnLost: a.lost,
		Questions: []sdk.Kind{sdk.Exec}, OnQuestion: a.question,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type account struct {
	mu                         sync.Mutex
	events, dropped, restarted uint64
	unannounced                uint64
}

func (a *account) event(*sdk.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events++
}

func (a *account) lost(_ *sdk.Session, l sdk.Lost) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := l.To - l.From + 1
	switch {
	case l.Cause == "unannounced":
		a.unannounced += n
	case l.Questions: // some of those that came are dropped unseen, so that there is no account of them
	case l.Cause == "agent_restart":
		a.restarted += n
	default:
		a.dropped += n
	}
}

// question denies what is called so, and reports the account when it is asked about /count.
func (a *account) question(_ context.Context, q *sdk.Question) sdk.Answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	path := q.File.GetPath()
	if path == "/count" {
		n := func(v uint64) string { return strconv.FormatUint(v, 10) }
		err := q.Report(sdk.Finding{Rule: "count", Title: "the account", Fields: map[string]string{
			"events": n(a.events), "dropped": n(a.dropped), "restarted": n(a.restarted), "unannounced": n(a.unannounced),
		}})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	if path == "/deny" {
		return sdk.Deny
	}
	return sdk.Allow
}
