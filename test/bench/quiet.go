package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
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
	before, err := processorTimes()
	for err == nil && time.Now().Before(end) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(quietWindow):
		}
		beat()
		var now [2]uint64
		if now, err = processorTimes(); err != nil {
			break
		}
		busy, all := now[0]-before[0], now[1]-before[1]
		if float64(busy) <= quietShare*float64(all) {
			return nil
		}
		before = now
	}
	return err
}

// processorTimes returns the ticks that all processors were busy and existed.
func processorTimes() (out [2]uint64, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return out, fmt.Errorf("read processor times: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var f [8]uint64 // user nice system idle iowait irq softirq steal
	if _, err := fmt.Sscanf(line, "cpu %d %d %d %d %d %d %d %d", &f[0], &f[1], &f[2], &f[3], &f[4], &f[5], &f[6], &f[7]); err != nil {
		return out, fmt.Errorf("read processor times in %q: %w", line, err)
	}
	for i, n := range f {
		out[1] += n
		if i != 3 && i != 4 {
			out[0] += n
		}
	}
	return out, nil
}
