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
// the Trial. The error is ErrBusy while there is another, and a release that cannot be started is an error too.
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
	t.run.host = host
	if err := t.run.launch(filepath.Join(t.dir, stateDir)); err != nil {
		return nil, errors.Join(err, t.end())
	}
	m.setTrial(t)
	return t, nil
}

func (m *Manager) setTrial(t *Trial) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trial = t
}

// endTrial kills what is being tried and waits until whoever tries it has closed it. Nothing is tried any more by then.
func (m *Manager) endTrial() {
	m.mu.Lock()
	t := m.trial
	m.mu.Unlock()
	if t != nil {
		t.run.process.Kill()
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
	record.UID = m.trialUID()
	u := m.newUnit(record.Name)
	u.dir, u.log = place, newLogFile(filepath.Join(place, logName), 1<<20)
	u.record, u.manifest = record, s.manifest
	state, err := u.ensureState(record.UID)
	if err != nil {
		return nil, err
	}
	if t.note, err = copyState(filepath.Join(live.dir, stateDir), state, record.UID, int64(record.Grants.Limits.State)); err != nil {
		return nil, err
	}
	t.run = u.newRun(&crashes{cfg: m.cfg.Backoff})
	t.run.place, t.run.trial = trialGroup(record.Name), true
	return t, nil
}

// Done is closed when nothing of it runs any more.
func (t *Trial) Done() <-chan struct{} { return t.run.process.Done() }

// Reason says, after Done, how it ended.
func (t *Trial) Reason() string { return t.run.exitReason() }

// Stats returns what it has used.
func (t *Trial) Stats() cgroup.Stats { return t.run.group.Stats() }

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
	r.session.Stop(time.Now().Add(t.m.cfg.StopTimeout))
	if !r.endedWithin(t.m.cfg.StopTimeout) {
		r.process.Kill()
		<-r.process.Done()
	}
}

// Close ends it if need be and removes everything of it. Call it once.
func (t *Trial) Close() error {
	defer t.m.trying.Unlock()
	t.m.setTrial(nil)
	return t.end()
}

func (t *Trial) end() error {
	return errors.Join(t.run.cleanUp(), t.run.u.log.Close(), os.RemoveAll(t.dir), durable.SyncDir(t.m.dir))
}
