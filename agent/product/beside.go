package product

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"bailey/agent/event"
	"bailey/agent/product/manifest"
	"bailey/internal/durable"
)

// Beside a product another release of it can run, contained like it, as a user of its own, on a copy of its state: first as its understudy, and, once
// that was promoted, the release before, which stays warm. Nobody starts it again when it ends, and it ends with the agent.
type role int

const (
	live       role = iota
	understudy      // may be promoted
	warm            // may be gone back to
	failing         // was gone back from, and ends
)

// Next and Before follow a product's name where what runs beside it is named; no product's name has a dot.
const (
	Next   = ".next"
	Before = ".before"
)

// called is what a unit is called by events and the hub.
func (r role) called(name string) string {
	switch r {
	case understudy:
		return name + Next
	case warm, failing:
		return name + Before
	}
	return name
}

// ErrAlone says that a release cannot run beside the live one: it takes its place by a restart.
var ErrAlone = errors.New("it cannot run beside the live release")

// ErrNotBeside says that no such release runs beside the product.
var ErrNotBeside = errors.New("it does not run beside the live release")

// other returns the one of two names that is not taken.
func other(taken, a, b string) string {
	if taken == a {
		return b
	}
	return a
}

// Shadow starts the product folder dir beside its product's live release, with the grants that it would have and no authority. Approve is asked as by
// Install. It returns when the release runs or has failed; what runs so already is no error. The error is ErrAlone where it has to be
// installed, and ErrBusy while another release is beside.
func (m *Manager) Shadow(ctx context.Context, dir string, approve func(Request) error) (View, error) {
	m.install.Lock()
	u, err := m.shadow(dir, approve)
	m.install.Unlock()
	if err == nil {
		err = u.await(ctx, func(u *unit) bool { return u.status.State == Running || u.status.State == Failed })
	}
	if err != nil {
		return View{}, fmt.Errorf("start %s beside the live release: %w", dir, err)
	}
	return u.view(), nil
}

// shadow is Shadow without waiting. m.install is held.
func (m *Manager) shadow(dir string, approve func(Request) error) (*unit, error) {
	s, err := m.stage(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(s.dir) }() // moved away by then, or unwanted
	present, record, req := m.merge(s)
	if o := m.beside(record.Name); o != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.role == understudy && o.record.Release == s.release && !o.gone {
			return o, nil
		}
		return nil, ErrBusy
	}
	if err := present.takesUnderstudy(&record, s.manifest); err != nil {
		return nil, err
	}
	if len(req.New) > 0 {
		if err := approve(req); err != nil {
			return nil, err
		}
	}
	u, err := m.newUnderstudy(present, s, record)
	if err != nil {
		present.pruneAside()
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.besides[u.name] = u
	m.watch(u)
	return u, nil
}

// takesUnderstudy says why a release with that record and manifest cannot run beside this one.
func (u *unit) takesUnderstudy(r *Record, mf *manifest.Manifest) error {
	off := u.m.isOff() // Manager.mu is not taken within unit.mu
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.present == nil || u.status.State != Running:
		return fmt.Errorf("%w: the product does not run", ErrAlone)
	case len(r.Grants.Rules)+len(u.record.Grants.Rules) > 0:
		return fmt.Errorf("%w: its rules are in the kernel under the product's name", ErrAlone)
	case mf.Run.ExclusiveState || u.manifest.Run.ExclusiveState:
		return fmt.Errorf("%w: its manifest says that its state is exclusive", ErrAlone)
	case u.status.StateFull:
		return fmt.Errorf("%w: its state directory is full", ErrAlone)
	case off:
		return errNotRunning
	}
	return nil
}

func (m *Manager) isOff() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ctx == nil
}

// newUnderstudy puts everything of an understudy in place. Its record is what the product's will be. m.install is held.
func (m *Manager) newUnderstudy(present *unit, s *staged, r Record) (*unit, error) {
	before := present.view().Record
	r.State, r.PreviousState, r.PreviousUID = other(before.stateName(), stateDir, secondStateDir), before.stateName(), before.UID
	var err error
	if r.UID, err = m.freeUID(); err != nil {
		return nil, err
	}
	if err := m.place(s, present.dir); err != nil {
		return nil, err
	}
	u := m.newUnit(r.Name)
	u.log, u.record, u.manifest, u.wanted = present.log, r, s.manifest, true
	u.role, u.place = understudy, other(present.place, r.Name, r.Name+".2")
	if err := os.RemoveAll(filepath.Join(u.dir, r.stateName())); err != nil {
		return nil, err
	}
	state, err := u.ensureState(&r)
	if err != nil {
		return nil, err
	}
	if err := copyWholeState(filepath.Join(u.dir, before.stateName()), state, r.UID, int64(r.Grants.Limits.State)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAlone, err)
	}
	return u, durable.SyncFS(state)
}

// beside returns what runs beside a product, or nil.
func (m *Manager) beside(name string) *unit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.besides[name]
}

// Beside returns the release that runs beside a product.
func (m *Manager) Beside(name string) (View, error) {
	u := m.beside(name)
	if u == nil {
		return View{}, ErrNotBeside
	}
	return u.view(), nil
}

// Promote puts a release that Shadow started into the product's place, with no moment in which neither has authority. The one before stays warm beside
// it, until Settle. The record is on the disk first: an agent that is killed on the way is followed by one that starts the new release.
func (m *Manager) Promote(name, release string) (View, error) {
	m.install.Lock()
	defer m.install.Unlock()
	fail := func(err error) (View, error) { return View{}, fmt.Errorf("promote %s of %s: %w", release, name, err) }
	before, err := m.unit(name)
	if err != nil {
		return fail(err)
	}
	next := m.beside(name)
	if next == nil {
		return fail(ErrNotBeside)
	}
	next.mu.Lock()
	ready := next.role == understudy && !next.gone && next.record.Release == release && next.status.State == Running
	record, run := next.record, next.present
	next.mu.Unlock()
	if !ready || run == nil {
		return fail(ErrNotBeside)
	}
	if err := writeRecord(next.dir, record); err != nil {
		return fail(err)
	}
	m.exchange(before, next, warm)
	if err := m.authority(next, before); err != nil {
		if m.exchange(next, before, failing) {
			m.dismiss(name)
			err = errors.Join(err, before.rewrite())
		}
		return fail(err)
	}
	next.set(Running, "it took the place of "+before.view().Release)
	before.set(Running, release+" took its place")
	return next.view(), nil
}

// authority moves it from one unit's run to the other's, which must be there.
func (m *Manager) authority(to, from *unit) error {
	to.mu.Lock()
	t := to.present
	to.mu.Unlock()
	from.mu.Lock()
	f := from.present
	from.mu.Unlock()
	if t == nil {
		return errors.New("it has ended")
	}
	if f == nil {
		return m.cfg.Promote(t.session, nil)
	}
	return m.cfg.Promote(t.session, f.session)
}

// exchange makes next the product and before what runs beside it, as r, if before is the product now. It reports whether it did.
func (m *Manager) exchange(before, next *unit, r role) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.units[before.name] != before {
		return false
	}
	m.units[before.name], m.besides[before.name] = next, before
	before.setRole(r)
	next.setRole(live)
	return true
}

func (u *unit) setRole(r role) {
	u.mu.Lock()
	if u.role = r; r == live { // both write into one log, as the product's release bounds it
		u.log.limit(int64(u.record.Grants.Limits.Log))
	}
	u.mu.Unlock()
	u.nudge() // what lives is kept by the keeper, what is warm is not
}

// rewrite puts the record as it is in memory on the disk.
func (u *unit) rewrite() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return writeRecord(u.dir, u.record)
}

// dismiss ends what runs beside a product, and returns at once. Its watcher clears away what it leaves.
func (m *Manager) dismiss(name string) {
	u := m.beside(name)
	if u == nil {
		return
	}
	u.mu.Lock()
	u.wanted, u.gone = false, true
	u.mu.Unlock()
	u.nudge()
}

// Settle ends what runs beside a product for the sake of a release, be it this one or the one before it, and waits until nothing of it is left. From then
// on there is no going back to its state.
func (m *Manager) Settle(ctx context.Context, name, release string) error {
	m.install.Lock()
	u, err := m.unit(name)
	o := m.beside(name)
	concerns := err == nil && (u.view().Release == release || o != nil && o.view().Release == release)
	if concerns {
		err = m.settle(u)
	}
	m.install.Unlock()
	if concerns && err == nil {
		err = m.awaitAlone(ctx, name)
	}
	if err != nil && !errors.Is(err, ErrUnknown) {
		return fmt.Errorf("settle product %s: %w", name, err)
	}
	return nil
}

// settle is Settle without waiting. m.install is held.
func (m *Manager) settle(u *unit) error {
	m.dismiss(u.name)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.broken != nil || u.record.PreviousUID == 0 {
		return nil
	}
	r := u.record
	r.PreviousState, r.PreviousUID = "", 0
	if err := writeRecord(u.dir, r); err != nil {
		return err
	}
	u.record = r // nothing that a run is started with
	return nil
}

// awaitAlone waits until nothing runs beside a product.
func (m *Manager) awaitAlone(ctx context.Context, name string) error {
	for {
		u := m.beside(name)
		if u == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-u.over:
		}
	}
}

// retreat makes the warm release the product again, after the one that took its place has ended: the hub has given it its authority back by then. It
// reports whether there was one.
func (m *Manager) retreat(bad *unit, reason string) bool {
	m.mu.Lock()
	u := m.besides[bad.name]
	can := m.units[bad.name] == bad && u != nil && u.isWarm()
	if can {
		m.units[bad.name], m.besides[bad.name] = u, bad
		u.setRole(live)
		bad.setRole(failing)
	}
	m.mu.Unlock()
	if !can {
		return false
	}
	if err := m.authority(u, bad); err != nil { // it has it already; what else belongs to it follows here
		m.cfg.Log.Warn("a release that was gone back to has ended, too", "product", u.name, "err", err)
	}
	u.set(Running, fmt.Sprintf("back from %s: %s", bad.view().Release, reason))
	if err := u.rewrite(); err != nil { // the next agent begins with the bad one, and goes back by itself
		m.cfg.Log.Error("going back to a release is not on the disk", "product", u.name, "err", err)
	}
	return true
}

// isWarm reports whether it can be gone back to at once.
func (u *unit) isWarm() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.role == warm && !u.gone && u.present != nil && u.status.State == Running
}

// returnToWarm is GoBack where the release before is still warm. It reports whether it was. m.install is held.
func (m *Manager) returnToWarm(bad *unit) (bool, error) {
	u := m.beside(bad.name)
	if u == nil || !u.isWarm() || !m.exchange(bad, u, failing) {
		return false, nil
	}
	if err := m.authority(u, bad); err != nil {
		m.exchange(u, bad, warm)
		return false, nil // it ended this moment
	}
	m.dismiss(bad.name)
	if err := u.rewrite(); err != nil {
		return true, err
	}
	u.set(Running, "back from "+bad.view().Release)
	return true, nil
}

// leave ends the watching of a unit: what was beside a product leaves nothing behind.
func (u *unit) leave() {
	defer close(u.over)
	m := u.m
	m.mu.Lock()
	product := m.units[u.name]
	m.mu.Unlock()
	if product == nil || product == u {
		_ = u.log.Close() // the last write has been checked
		return
	}
	m.tidy.Lock()
	product.pruneAside()
	m.tidy.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.besides[u.name] == u {
		delete(m.besides, u.name)
	}
}

// detail is what is told of a unit's state. u.mu is held.
func (u *unit) detail(s State, reason string) *event.ProductDetail {
	return &event.ProductDetail{
		Product: u.role.called(u.name), Release: u.record.Release, State: string(s), Authority: u.authority(), Reason: reason, Restarts: u.status.Restarts,
	}
}
