package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"bailey/sdk"
)

// finding tells the tests something.
func (b *behaviour) finding(rule string, fields map[string]string) {
	err := b.session.Report(sdk.Finding{Rule: rule, Title: rule, Severity: sdk.Info, Action: sdk.Detected, Fields: fields})
	if err != nil {
		fmt.Fprintln(os.Stderr, "faulty:", err)
	}
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

// ledger is an account of the events that this product received and of those that it was told it lost. Its methods run on
// the ordered handlers' goroutine.
type ledger struct {
	on bool

	mu                      sync.Mutex
	seen, announced, silent uint64
}

// event counts one event; a file called "ledger" that is written asks for the account.
func (l *ledger) event(b *behaviour, e *sdk.Event) {
	if !l.on {
		return
	}
	l.mu.Lock()
	l.seen++
	fields := map[string]string{"seen": fmt.Sprint(l.seen), "announced": fmt.Sprint(l.announced), "silent": fmt.Sprint(l.silent)}
	l.mu.Unlock()
	if path := e.GetFile().GetFile().GetPath(); e.GetKind() == sdk.CloseWrite && strings.Contains(path, "/ledger-") {
		fields["asked_by"] = path
		b.finding("ledger", fields)
	}
}

// lost counts what was announced; the sdk says "unannounced" of a hole in the numbers.
func (l *ledger) lost(gone sdk.Lost) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch n := gone.To - gone.From + 1; {
	case gone.Questions:
	case gone.Cause == "unannounced":
		l.silent += n
	default:
		l.announced += n
	}
}
