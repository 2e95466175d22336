package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"bailey/agent/health"
	"bailey/internal/boottime"

	"golang.org/x/sys/unix"
)

const (
	// clockShift is the least change of the wall clock that is told: less is what keeping time looks like.
	clockShift = time.Second
	// clockJump is a change that somebody should look at, and clockJumpFor is for how long it is shown.
	clockJump    = time.Hour
	clockJumpFor = time.Hour
)

// watchClock says when the machine's wall clock was set. Nothing that Bailey decides goes by that clock: deadlines, budgets and windows
// count from boot. But certificates, schedules, and whoever reads times do.
func (a *Agent) watchClock(ctx context.Context) error {
	if err := a.tellClock(ctx); err != nil && ctx.Err() == nil {
		a.health.Set(health.Entry{
			Component: "clock", Status: health.Degraded, Summary: fmt.Sprintf("nobody watches whether the wall clock is set: %v", err),
			Remedy: "restart the agent when descriptors are free",
		})
	}
	<-ctx.Done()
	return nil
}

func (a *Agent) tellClock(ctx context.Context) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "clock")
	defer f.Close()
	defer context.AfterFunc(ctx, func() { _ = f.Close() })()
	zero := boottime.Zero()
	a.health.Set(clockEntry(0, time.Time{}))
	for {
		set, err := clockSet(f)
		if err != nil {
			return err
		}
		now := boottime.Zero()
		switch shift := now.Sub(zero); {
		case shift.Abs() >= clockShift:
			a.health.Set(clockEntry(shift, time.Now()))
			zero = now
		case !set:
			a.health.Set(clockEntry(0, time.Time{}))
		}
	}
}

// clockSet waits until the wall clock is set, or for clockJumpFor, and reports which.
func clockSet(f *os.File) (set bool, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	// The kernel takes an absolute time on this clock, and says that the clock was set only to those who wait for one.
	var armed error
	until := unix.ItimerSpec{Value: unix.NsecToTimespec(time.Now().Add(clockJumpFor).UnixNano())}
	if err := raw.Control(func(fd uintptr) {
		armed = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &until, nil)
	}); err != nil {
		return false, err
	}
	if armed != nil && !errors.Is(armed, unix.ECANCELED) {
		return false, armed
	}
	var ticks [8]byte
	_, err = f.Read(ticks[:])
	if errors.Is(err, unix.ECANCELED) {
		return true, nil
	}
	return false, err
}

// clockEntry says by how much the wall clock was set, and when by its new time.
func clockEntry(shift time.Duration, at time.Time) health.Entry {
	e := health.Entry{Component: "clock", Status: health.OK, Summary: "the wall clock goes on evenly"}
	if shift == 0 {
		return e
	}
	way := "forward"
	if shift < 0 {
		way = "back"
	}
	e.Summary = fmt.Sprintf("the wall clock was set %s by %v, to %s; deadlines go by another clock and hold", way,
		shift.Abs().Round(time.Millisecond), at.UTC().Format(time.RFC3339))
	if shift.Abs() >= clockJump {
		e.Status, e.Remedy = health.Degraded, "find out who set it (time synchronisation, hardware, a person), and check what goes by it: certificates, schedules, times in logs"
	}
	return e
}
