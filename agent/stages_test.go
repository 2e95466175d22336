package agent

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStagesStopInReverse(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var stopped []string // written by one stage at a time: each is waited for
	var stages []stage
	for _, name := range []string{"first", "second", "third"} {
		stages = append(stages, stage{name, func(ctx context.Context) error {
			<-ctx.Done()
			stopped = append(stopped, name)
			return ctx.Err()
		}})
	}
	cancel()
	if err := runStages(ctx, stages); err != nil {
		t.Errorf("runStages = %v after its context ended", err)
	}
	if diff := cmp.Diff([]string{"third", "second", "first"}, stopped); diff != "" {
		t.Error(diff)
	}
}

func TestStagesEndWhenOneFails(t *testing.T) {
	broken := errors.New("broken")
	waits := stage{"waits", func(ctx context.Context) error { <-ctx.Done(); return nil }}
	for name, tt := range map[string]struct {
		run  func(context.Context) error
		want error
	}{
		"with_an_error": {func(context.Context) error { return broken }, broken},
		"without_one":   {func(context.Context) error { return nil }, errEndedEarly},
	} {
		t.Run(name, func(t *testing.T) {
			err := runStages(t.Context(), []stage{waits, {"fails", tt.run}, waits})
			if !errors.Is(err, tt.want) {
				t.Errorf("runStages = %v, want %v", err, tt.want)
			}
		})
	}
}
