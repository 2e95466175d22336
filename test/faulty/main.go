// Command faulty is a product that misbehaves on demand: its settings say how it answers, how late, and what it breaks. The
// end-to-end tests, the self-test's peers and the benchmarks install it under several names. It uses the public sdk alone
// and runs in the same containment as every product, so what it cannot do no product can.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"bailey/sdk"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "faulty:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	// What to subscribe to must be known before the first frame, so it comes by the command line; the rest by settings.
	b := &behaviour{}
	return sdk.Run(ctx, sdk.Product{
		Events:     kinds(flag("events")),
		Questions:  kinds(flag("questions")),
		OnReady:    b.configure,
		OnQuestion: b.answer,
		OnEvent:    b.event,
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
		"verdict": sdk.VerdictKind, "finding": sdk.FindingKind, "product": sdk.ProductKind, "health": sdk.HealthKind,
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

// behaviour is what the settings ask for.
type behaviour struct {
	session     *sdk.Session
	deny        bool          // answer "deny" to everything
	denyPath    string        // deny what lies below it
	denyContent string        // deny what contains it in its first 64 KiB
	cache       bool          // say that the answer depends on the file alone
	delay       time.Duration // wait before answering
	only        string        // misbehave only for files below it
	hang        bool          // never answer
	crash       bool          // panic on a question
	read        bool          // report the file's first bytes as a finding
	seen        bool          // report every event as a finding
}

func (b *behaviour) configure(s *sdk.Session) error {
	set := s.Settings()
	b.session = s
	b.deny = set["answer"] == "deny"
	b.denyPath = set["deny_path"]
	b.denyContent = set["deny_content"]
	b.cache = set["cache"] == "true"
	b.only = set["only"]
	b.hang = set["hang"] == "true"
	b.crash = set["crash"] == "true"
	b.read = set["read"] == "true"
	b.seen = set["seen"] == "true"
	if d := set["delay"]; d != "" {
		var err error
		if b.delay, err = time.ParseDuration(d); err != nil {
			return fmt.Errorf("read the setting delay: %w", err)
		}
	}
	if set["exit"] == "true" {
		return fmt.Errorf("told to exit")
	}
	return nil
}

func (b *behaviour) answer(ctx context.Context, q *sdk.Question) sdk.Answer {
	if b.only != "" && !strings.HasPrefix(q.GetFile().GetPath(), b.only) {
		return b.cached(sdk.Allow)
	}
	if b.crash {
		panic("told to crash")
	}
	if b.hang {
		select {} // the deadline is somebody else's
	}
	if b.delay > 0 {
		time.Sleep(b.delay)
	}
	if b.read {
		b.report(q)
	}
	if b.denies(q) {
		return b.cached(sdk.Deny)
	}
	return b.cached(sdk.Allow)
}

func (b *behaviour) cached(a sdk.Answer) sdk.Answer {
	if b.cache {
		return a.CacheFile()
	}
	return a
}

func (b *behaviour) denies(q *sdk.Question) bool {
	if b.deny {
		return true
	}
	if b.denyPath != "" && strings.HasPrefix(q.GetFile().GetPath(), b.denyPath) {
		return true
	}
	return b.denyContent != "" && strings.Contains(head(q, 64<<10), b.denyContent)
}

// head reads the first n bytes of the question's file through its descriptor.
func head(q *sdk.Question, n int64) string {
	text, err := io.ReadAll(io.NewSectionReader(q.Reader(), 0, n))
	if err != nil {
		return ""
	}
	return string(text)
}

func (b *behaviour) report(q *sdk.Question) {
	_, open := os.Open(q.GetFile().GetPath())
	err := q.Report(sdk.Finding{
		Rule: "read", Title: "read through the descriptor", Severity: sdk.Info, Action: sdk.Detected,
		Fields: map[string]string{"content": head(q, 256), "open_by_path": fmt.Sprint(open)},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "faulty:", err)
	}
}

func (b *behaviour) event(e *sdk.Event) {
	if !b.seen {
		return
	}
	err := b.session.Report(sdk.Finding{
		Rule: "seen", Title: "event " + e.GetKind().String(), Severity: sdk.Info, Action: sdk.Detected,
		Fields: map[string]string{"seq": fmt.Sprint(e.GetSeq()), "path": e.GetFile().GetFile().GetPath()},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "faulty:", err)
	}
}
