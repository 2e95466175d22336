package agent

import (
	"context"
	"errors"
	"fmt"
)

// stage is one part of the agent that runs for as long as the agent does.
type stage struct {
	name string
	run  func(context.Context) error
}

// runStages starts the stages in order and, when ctx ends or one of them fails, ends them one by one in reverse: each finds
// everything that was started before it still working while it stops. It returns the first failure, nil after ctx.
func runStages(ctx context.Context, stages []stage) error {
	type ended struct {
		index int
		err   error
	}
	reports := make(chan ended, len(stages))
	cancels := make([]context.CancelFunc, len(stages))
	dones := make([]chan struct{}, len(stages))
	for i, s := range stages {
		// Not derived from ctx: the order of stopping is this function's.
		var own context.Context
		own, cancels[i] = context.WithCancel(context.WithoutCancel(ctx))
		dones[i] = make(chan struct{})
		go func() {
			defer close(dones[i])
			reports <- ended{i, s.run(own)}
		}()
	}

	var failure error
	select {
	case <-ctx.Done():
	case e := <-reports:
		failure = stageError(stages[e.index], e.err)
		if failure == nil {
			failure = fmt.Errorf("%s: %w", stages[e.index].name, errEndedEarly)
		}
	}
	for i := len(stages) - 1; i >= 0; i-- {
		cancels[i]()
		<-dones[i]
	}
	close(reports)
	for e := range reports {
		if err := stageError(stages[e.index], e.err); err != nil && failure == nil {
			failure = err
		}
	}
	return failure
}

var errEndedEarly = errors.New("ended although the agent goes on")

// stageError names the stage of err; the end of its context is how a stage is told to stop and no error.
func stageError(s stage, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("%s: %w", s.name, err)
}
