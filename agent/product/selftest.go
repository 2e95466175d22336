package product

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// selfTestLimit is how long a release may take to test itself, at idle priority.
const selfTestLimit = 30 * time.Second

// selfTestLog is how much is kept of what a self-test says.
const selfTestLog = 4 << 10

// SelfTestError says that a release's test of itself failed: what its manifest has as run.self_test.
type SelfTestError struct {
	Release string
	Reason  string
	Log     string // the end of what it said
}

func (e *SelfTestError) Error() string { return "its self-test failed: " + e.Reason }

// testItself has the release test itself, if it can: contained as it will run, on what it will have of the state, and with nobody to speak with.
func (t *Trial) testItself() error {
	r := t.newRun(t.run.u, deaf{})
	test := *r.manifest
	if test.Run.Command = test.Run.SelfTest; len(test.Run.Command) == 0 {
		return nil
	}
	r.manifest = &test
	if err := t.launch(r); err != nil {
		return err
	}
	reason := ""
	if !r.endedWithin(selfTestLimit) {
		reason = fmt.Sprintf("it took longer than %v", selfTestLimit)
	} else if exit := r.process.Exit(); exit.Signal != 0 || exit.Code != 0 {
		reason = r.exitReason()
	}
	if err := r.cleanUp(); err != nil {
		return err
	}
	next := t.newRun(r.u, nil)
	t.m.mu.Lock()
	t.run = next
	over := t.m.ctx == nil
	t.m.mu.Unlock()
	switch {
	case over: // it may have been killed for that
		return errNotRunning
	case reason != "":
		return &SelfTestError{t.Request.Release, reason, t.Log(selfTestLog)}
	}
	return nil
}

// deaf speaks with nobody.
type deaf struct{}

var (
	_ Host    = deaf{}
	_ Session = deaf{}
)

func (deaf) Connect(_ Instance, sock int) (Session, error) { return deaf{}, unix.Close(sock) }
func (deaf) Resume(_ Instance, sock int) (Session, error)  { return deaf{}, unix.Close(sock) }
func (deaf) Stop(time.Time)                                {}
func (deaf) Done() <-chan struct{}                         { return nil }
func (deaf) Err() error                                    { return nil }
func (deaf) Close()                                        {}
func (deaf) Resumable() <-chan struct{}                    { return nil }
func (deaf) Leave()                                        {}
