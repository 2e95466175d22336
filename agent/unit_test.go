package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/sensor/process"
	"bailey/internal/roottest"
)

// TestLineage: a process is named with all that it comes from, whether the process sensor works or rests.
func TestLineage(t *testing.T) {
	roottest.Require(t, "loads BPF programs")
	a := &Agent{log: slog.New(slog.DiscardHandler), health: health.NewRegistry()}
	var err error
	if a.processes, err = process.New(process.Config{Emit: func(*event.Event) {}, Log: a.log, Health: a.health}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.processes.Run(ctx) }()
	check := func(when string) error {
		p, err := a.processes.Load(uint32(os.Getpid()))
		if err != nil {
			return err
		}
		got := a.lineage(p)
		if !strings.HasPrefix(got, fmt.Sprintf("%d ", os.Getpid())) || !strings.Contains(got, fmt.Sprintf(" < %d ", os.Getppid())) || !strings.Contains(got, " < 1 ") {
			return fmt.Errorf("%s: %s", when, got)
		}
		return nil
	}
	if err := check("at rest"); err != nil {
		t.Error(err)
	}
	a.processes.SetWanted(true)
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(50 * time.Millisecond) {
		if a.processes.Lookup(uint32(os.Getpid())) != nil || time.Now().After(deadline) {
			break
		}
	}
	if err := check("at work"); err != nil {
		t.Error(err)
	}
	a.processes.SetWanted(false)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := a.processes.Close(); err != nil {
		t.Error(err)
	}
}

func TestSameStart(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		a, b uint64
		want bool
	}{{12_345_678_901, 12_345_678_901, true}, {12_345_678_901, 12_340_000_000, true}, {12_340_000_000, 12_345_678_901, true}, {12_345_678_901, 12_350_000_000, false}} {
		if got := sameStart(tc.a, tc.b); got != tc.want {
			t.Errorf("%d and %d: %v", tc.a, tc.b, got)
		}
	}
}
