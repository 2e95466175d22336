package main

import (
	"context"
	"time"

	"bailey/test/bench/contender"
)

const (
	quietShare    = 0.05 // of all processors' time
	quietWindow   = 300 * time.Millisecond
	quietPatience = 15 * time.Second
)

// awaitQuiet waits until what a lane's start set off (package databases, rules, caches) is over, so that the first metric
// does not measure it. On a machine that never gets quiet it gives up: the load is in the results.
func awaitQuiet(ctx context.Context, beat func()) error {
	end := time.Now().Add(quietPatience)
	before, err := contender.ProcessorTimes()
	for err == nil && time.Now().Before(end) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(quietWindow):
		}
		beat()
		var now contender.Ticks
		if now, err = contender.ProcessorTimes(); err != nil {
			break
		}
		if float64(now.Busy-before.Busy) <= quietShare*float64(now.All-before.All) {
			return nil
		}
		before = now
	}
	return err
}
