package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"bailey/agent/event"
)

// Source gives events in the order in which they are to be played, io.EOF after the last. Called from one goroutine.
type Source interface {
	Next() (*event.Event, error)
}

// Config configures a Sensor.
type Config struct {
	Source Source
	Emit   func(*event.Event) // must not block
	// Speed is how many times faster than recorded: 1 is the original pace, 0 does not wait at all.
	Speed float64
	// Rebase, when not zero, is the time (CLOCK_BOOTTIME) that the first event gets; the others keep their distance.
	Rebase uint64
}

// Sensor plays one Source once.
type Sensor struct {
	cfg    Config
	played uint64
}

// New returns a Sensor.
func New(cfg Config) (*Sensor, error) {
	if cfg.Source == nil || cfg.Emit == nil {
		return nil, errors.New("create the replay sensor: Source and Emit are required")
	}
	if cfg.Speed < 0 {
		return nil, fmt.Errorf("create the replay sensor: speed %v is negative: 1 is the original pace, 0 as fast as possible", cfg.Speed)
	}
	return &Sensor{cfg: cfg}, nil
}

// Run plays until the source ends, which is no error, or ctx does, which is.
func (s *Sensor) Run(ctx context.Context) error {
	start := time.Now()
	var first uint64
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := s.cfg.Source.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if s.played == 0 {
			first = e.Time
		}
		// Events of several processors can be recorded slightly out of order: never wait backwards.
		offset := uint64(0)
		if e.Time > first {
			offset = e.Time - first
		}
		if err := s.wait(ctx, start, offset); err != nil {
			return err
		}
		if s.cfg.Rebase != 0 {
			c := *e
			c.Time = s.cfg.Rebase + e.Time - first
			e = &c
		}
		s.played++
		s.cfg.Emit(e)
	}
}

// wait sleeps until the event at offset is due.
func (s *Sensor) wait(ctx context.Context, start time.Time, offset uint64) error {
	if s.cfg.Speed == 0 {
		return nil
	}
	due := start.Add(time.Duration(float64(offset) / s.cfg.Speed))
	left := time.Until(due)
	if left <= 0 {
		return nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
