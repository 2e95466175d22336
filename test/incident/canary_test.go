package incident

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	productv1 "bailey/api/product/v1"

	"golang.org/x/sys/unix"
)

// times are how long something took, each time.
type times []time.Duration

func (l times) longest() time.Duration {
	if len(l) == 0 {
		return 0
	}
	return slices.Max(l)
}

func (l times) p99() time.Duration { return l.quantile(99) }

// quantile is what so many of a hundred did not exceed.
func (l times) quantile(ofHundred int) time.Duration {
	if len(l) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(l))
	return sorted[min(len(sorted)*ofHundred/100, len(sorted)-1)]
}

// felt is what the machine and the healthy product feel while something goes on.
type felt struct {
	exec, open, control times // of the canaries; control is unwatched
	refused             int   // canaries
	other               times // the healthy product's answers
	misses              uint64
	events, lost        uint64 // its events
}

// add joins two times of measuring.
func (f *felt) add(g felt) {
	f.exec, f.open, f.control = append(f.exec, g.exec...), append(f.open, g.open...), append(f.control, g.control...)
	f.other = append(f.other, g.other...)
	f.refused += g.refused
	f.misses += g.misses
	f.events += g.events
	f.lost += g.lost
}

// share is the part of its events that the healthy product lost.
func (f *felt) share() string {
	if f.lost == 0 {
		return "0"
	}
	return fmt.Sprintf("%.2f %%", 100*float64(f.lost)/float64(f.lost+f.events))
}

// The canaries are processes of their own, each this test's program in another role: a fork that waits for a verdict holds up the
// whole process that forks, and a canary must measure nothing but itself.
const (
	canaryRole = "BAILEY_CANARY"      // exec or open
	canaryPath = "BAILEY_CANARY_PATH" // what it executes or opens
)

const canaryPause = 10 * time.Millisecond

// asking is how many canaries wait for a verdict at a time: the exec and the open that are watched.
const asking = 2

// chirp is what a canary says at its end.
type chirp struct {
	Times   times
	Refused int
	Fault   string // what it met that is no refusal
}

// canaryMain is a canary: it does the same again and again until its standard input ends.
func canaryMain(role, path string) int {
	do := func() error { return opens(path) }
	if role == "exec" {
		do = func() error { return execs(path) }
	}
	stop := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is the message
		close(stop)
	}()
	var c chirp
	for {
		start := time.Now()
		err := do()
		c.Times = append(c.Times, time.Since(start))
		switch {
		case refused(err):
			c.Refused++
		case err != nil:
			c.Fault = err.Error()
		}
		select {
		case <-stop:
			if json.NewEncoder(os.Stdout).Encode(c) != nil {
				return 1
			}
			return 0
		case <-time.After(canaryPause):
		}
	}
}

// canaries are the processes that measure.
type canaries struct {
	running []*canary
	felt    felt
}

// canary is one of them.
type canary struct {
	cmd  *exec.Cmd
	stop io.Closer
	out  bytes.Buffer
	to   *times
}

func (s *scene) canaries() *canaries {
	s.t.Helper()
	c := &canaries{}
	for _, one := range []struct {
		role, path string
		to         *times
	}{{"exec", s.canary, &c.felt.exec}, {"exec", s.unwatched, &c.felt.control}, {"open", s.file, &c.felt.open}} {
		k := &canary{cmd: exec.Command("/proc/self/exe"), to: one.to}
		k.cmd.Env = append(os.Environ(), canaryRole+"="+one.role, canaryPath+"="+one.path)
		k.cmd.Stdout, k.cmd.Stderr = &k.out, os.Stderr
		stop, err := k.cmd.StdinPipe()
		if err == nil {
			err = k.cmd.Start()
		}
		if err != nil {
			s.t.Fatalf("start a canary: %v", err)
		}
		k.stop = stop
		c.running = append(c.running, k)
	}
	return c
}

// end stops all and returns what they measured.
func (c *canaries) end() (felt, error) {
	var errs []error
	for _, k := range c.running {
		_ = k.stop.Close() // one that is gone already says so below
	}
	for _, k := range c.running {
		if err := k.cmd.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("canary: %w", err))
			continue
		}
		var said chirp
		if err := json.Unmarshal(k.out.Bytes(), &said); err != nil {
			errs = append(errs, fmt.Errorf("canary: %w", err))
			continue
		}
		*k.to = said.Times
		c.felt.refused += said.Refused
		if said.Fault != "" {
			errs = append(errs, errors.New(said.Fault))
		}
	}
	return c.felt, errors.Join(errs...)
}

// opens opens a file for reading. The descriptor does not go through Go's poller.
func opens(path string) error {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
}

func execs(path string, args ...string) error { return exec.Command(path, args...).Run() }

// refused reports whether err is a product's deny.
func refused(err error) bool { return errors.Is(err, syscall.EPERM) }

// answersOf returns how long a product took for the verdicts among events that it was waited for.
func answersOf(product string, events []*productv1.Event) times {
	var out times
	for _, e := range events {
		for _, a := range e.GetVerdict().GetAnswers() {
			if a.GetProduct() == product && a.GetOutcome() == "answered" {
				out = append(out, time.Duration(a.GetLatency()))
			}
		}
	}
	return out
}
