package product

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"bailey/agent/product/cgroup"
	"bailey/agent/product/grant"
	"bailey/internal/durable"
)

// ErrBusy says that another trial runs.
var ErrBusy = errors.New("another release is being tried")

// Trial is one run of a release that is not installed: contained and bounded as the installed product would be, with the
// grants and settings that it would have, as a user of its own, in a control group of its own and on a copy of the product's state. Nothing
// supervises it, nothing outlives the agent, and it has the processor only when nobody else wants it. Safe for concurrent use.
type Trial struct {
	Request Request
	Grants  grant.Grant // what it would have

	m    *Manager
	dir  string // everything that it has on the disk
	run  *run
	note string
}

// trialUID is the user that trials run as, one at a time.
func (m *Manager) trialUID() uint32 { return m.cfg.UIDBase + maxProducts - 1 }

// trialGroup is the control group of a product's trial; no product's name has a dot.
func trialGroup(name string) string { return name + ".trial" }

// Try starts the product folder dir without installing it, and has host speak with it. Approve is asked as by Install. Close
// the Trial. The error is ErrBusy while there is another, and a release that cannot be started is an error too; a *SelfTestError says that the
// release itself finds that it is not good.
func (m *Manager) Try(dir string, host Host, approve func(Request) error) (*Trial, error) {
	if !m.trying.TryLock() {
		return nil, ErrBusy
	}
	t, err := m.try(dir, host, approve)
	if err != nil {
		m.trying.Unlock()
		return nil, fmt.Errorf("try %s: %w", dir, err)
	}
	return t, nil
}

func (m *Manager) try(dir string, host Host, approve func(Request) error) (*Trial, error) {
	m.mu.Lock()
	running := m.ctx != nil
	m.mu.Unlock()
	if !running {
		return nil, errNotRunning
	}
	t, err := m.prepareTrial(dir, approve)
	if err != nil {
		return nil, err
	}
	if err = t.testItself(); err == nil {
		err = t.start(host)
	}
	if err != nil {
		return nil, errors.Join(err, t.end())
	}
	return t, nil
}

// endTrial kills what is being tried and waits until whoever tries it has closed it. Nothing is tried any more by then.
func (m *Manager) endTrial() {
	m.mu.Lock()
	var running *run
	if m.trial != nil {
		running = m.trial.run
	}
	m.mu.Unlock()
	if running != nil && running.process != nil {
		running.process.Kill()
	}
	m.trying.Lock()
	defer m.trying.Unlock()
}

// prepareTrial puts everything in place.
func (m *Manager) prepareTrial(dir string, approve func(Request) error) (t *Trial, err error) {
	m.install.Lock()
	defer m.install.Unlock()
	s, err := m.stage(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(s.dir) }() // moved away by then, or unwanted
	live, record, req := m.merge(s)
	if err := approve(req); err != nil {
		return nil, err
	}
	place, err := os.MkdirTemp(m.dir, stagingPrefix)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(place))
		}
	}()
	releases := filepath.Join(place, releasesDir)
	if err := errors.Join(os.Mkdir(releases, 0o700), os.Rename(s.dir, filepath.Join(releases, s.release))); err != nil {
		return nil, err
	}
	t = &Trial{Request: req, Grants: record.Grants, m: m, dir: place}
	record.UID, record.State = m.trialUID(), ""
	u := m.newUnit(record.Name)
	u.dir, u.log = place, newLogFile(filepath.Join(place, logName), 1<<20)
	u.record, u.manifest = record, s.manifest
	state, err := u.ensureState(&record)
	if err != nil {
		return nil, err
	}
	if t.note, err = copyState(filepath.Join(live.dir, live.view().stateName()), state, record.UID, int64(record.Grants.Limits.State)); err != nil {
		return nil, err
	}
	t.run = t.newRun(u, nil)
	return t, nil
}

// newRun makes a run that host speaks with.
func (t *Trial) newRun(u *unit, host Host) *run {
	r := u.newRun(&crashes{cfg: t.m.cfg.Backoff})
	r.place, r.trial, r.host = trialGroup(r.record.Name), true, host
	return r
}

// start starts it anew, after the run before is over.
func (t *Trial) start(host Host) error { return t.launch(t.newRun(t.run.u, host)) }

// launch starts a run, which is its run from then on.
func (t *Trial) launch(next *run) error {
	err := next.launch(filepath.Join(t.dir, stateDir))
	t.m.mu.Lock()
	t.run, t.m.trial = next, t
	over := t.m.ctx == nil
	t.m.mu.Unlock()
	if over && next.process != nil { // endTrial has ended the run before, or found none
		next.process.Kill()
	}
	return err
}

// Done is closed when nothing of it runs any more.
func (t *Trial) Done() <-chan struct{} { return t.run.process.Done() }

// Reason says, after Done, how it ended.
func (t *Trial) Reason() string { return t.run.exitReason() }

// Stats returns what it has used.
func (t *Trial) Stats() cgroup.Stats { return t.run.group.Stats() }

// Delayed returns how long the one of its threads that waited longest for a processor has waited, in all: on a busy machine a trial waits most of the
// time. 0 where the kernel does not say (CONFIG_SCHED_INFO).
func (t *Trial) Delayed() (longest time.Duration) {
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", t.run.process.PID()))
	if err != nil {
		return 0
	}
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if err != nil {
			continue // it ended
		}
		var ran, waited uint64 // nanoseconds; Documentation/scheduler/sched-stats.rst
		if _, err := fmt.Sscan(string(text), &ran, &waited); err == nil {
			longest = max(longest, time.Duration(waited))
		}
	}
	return longest
}

// Note says what of the product's state it did not get; empty when it got all.
func (t *Trial) Note() string { return t.note }

// Log returns the end of what it wrote to its outputs, at most limit bytes.
func (t *Trial) Log(limit int) string {
	var out []byte
	err := t.run.u.log.read(context.Background(), false, func(b []byte) error {
		out = append(out, b...)
		out = out[max(0, len(out)-limit):]
		return nil
	})
	if err != nil {
		return ""
	}
	return string(out)
}

// Stop asks it to finish, and ends it after the manager's patience.
func (t *Trial) Stop() {
	r := t.run
	if r.session == nil {
		return // it did not come that far
	}
	r.session.Stop(time.Now().Add(t.m.cfg.StopTimeout))
	if !r.endedWithin(t.m.cfg.StopTimeout) {
		r.process.Kill()
		<-r.process.Done()
	}
}

// Folder is where its release lies, as it was approved.
func (t *Trial) Folder() string { return filepath.Join(t.dir, releasesDir, t.Request.Release) }

// Again ends it, and starts it once more on the state that it left, with another host.
func (t *Trial) Again(host Host) error {
	t.Stop()
	if err := t.run.cleanUp(); err != nil {
		return err
	}
	return t.start(host)
}

// Close ends it if need be and removes everything of it. Call it once.
func (t *Trial) Close() error {
	defer t.m.trying.Unlock()
	return t.end()
}

func (t *Trial) end() error {
	t.m.mu.Lock()
	t.m.trial = nil
	t.m.mu.Unlock()
	return errors.Join(t.run.cleanUp(), t.run.u.log.Close(), os.RemoveAll(t.dir), durable.SyncDir(t.m.dir))
}
