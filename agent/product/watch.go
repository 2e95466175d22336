package product

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"bailey/agent/product/manifest"
)

// watch is a product's own goroutine for as long as the agent runs: it starts the product when it is wanted, and again when
// it ended, and takes it down when it is not wanted any more.
func (u *unit) watch(ctx context.Context) {
	defer u.leave()
	memory := crashes{cfg: u.m.cfg.Backoff}
	ran := false
	for u.awaitWanted(ctx, &memory) {
		if ran {
			u.mu.Lock()
			u.status.Restarts++
			u.mu.Unlock()
		}
		ran = true
		end := u.runOnce(ctx, &memory)
		if end.left {
			return
		}
		if ctx.Err() != nil {
			u.set(Stopped, "the agent is stopping")
			return
		}
		if end.requested {
			memory.forget()
			ran = u.isWanted()
			continue
		}
		u.m.cfg.Log.Warn("product ended", "product", u.name, "reason", end.reason, "ran_for", end.ran)
		if u.isBeside() { // nobody depends on it
			u.mu.Lock()
			u.wanted, ran = false, false
			u.mu.Unlock()
			u.set(Failed, end.reason)
			continue
		}
		if u.m.retreat(u, end.reason) {
			return
		}
		wait, loop := memory.ended(time.Now(), end.ran)
		if loop {
			memory.forget()
			u.crashLoop(end.reason)
			continue
		}
		u.set(Waiting, end.reason)
		u.sleep(ctx, wait)
	}
}

func (u *unit) isBeside() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.role != live
}

// ending says how one run of a product ended.
type ending struct {
	requested bool   // by the operator or the agent
	left      bool   // it goes on with another agent
	reason    string // otherwise: what happened
	ran       time.Duration
}

func (u *unit) isWanted() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.wanted
}

// awaitWanted waits until the product shall run; false when the agent stops or the product is forgotten.
func (u *unit) awaitWanted(ctx context.Context, memory *crashes) bool {
	for ctx.Err() == nil {
		u.mu.Lock()
		wanted, gone, state := u.wanted, u.gone, u.status.State
		if wanted {
			u.status.State = Starting // from here on whoever wants it stopped must wait
		}
		u.mu.Unlock()
		if wanted || gone {
			return wanted
		}
		if state != Stopped && state != Failed {
			u.set(Stopped, "")
		}
		select {
		case <-ctx.Done():
		case <-u.wake:
			memory.forget()
		}
	}
	return false
}

// sleep waits out the backoff, unless an operator wants something else meanwhile.
func (u *unit) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-u.wake:
	case <-t.C:
	}
}

// crashLoop goes back to the release before, whose grants come back with it. With none left the product is off and said to
// be; its record stays enabled, so that the next start of the agent tries again.
func (u *unit) crashLoop(reason string) {
	cfg := u.m.cfg.Backoff
	said := fmt.Sprintf("it ended %d times within %v, the last time: %s", cfg.Crashes, cfg.CrashesFor, reason)
	u.mu.Lock()
	bad, back := u.record.Release, u.record.Previous
	u.mu.Unlock()
	if back != "" {
		if err := u.goBack(); err != nil {
			u.m.cfg.Log.Error("product cannot go back to its last good release", "product", u.name, "err", err)
			back = ""
		}
	}
	if back != "" {
		u.set(Waiting, fmt.Sprintf("back from %s to %s: %s", bad, back, said))
	} else {
		u.mu.Lock()
		u.wanted = false
		u.mu.Unlock()
		u.set(Failed, "off: "+said)
	}
	if f := u.m.cfg.OnCrashLoop; f != nil {
		u.m.watchers.Go(func() { f(u.name, bad, back) }) // not here: it may wait for this very goroutine
	}
}

// goBack makes the release before the current one.
func (u *unit) goBack() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	r := u.record
	mf, err := manifest.Load(filepath.Join(u.dir, releasesDir, r.Previous))
	if err != nil {
		return err
	}
	r.Release, r.Previous = r.Previous, ""
	if r.PreviousUID != 0 {
		r.State, r.UID, r.PreviousState, r.PreviousUID = r.PreviousState, r.PreviousUID, "", 0
	}
	if r.PreviousGrants != nil {
		r.Grants, r.PreviousGrants = *r.PreviousGrants, nil
	}
	if err := u.save(r); err != nil {
		return err
	}
	u.manifest = mf
	return nil
}

// halt makes the watcher take the product down without changing the record, and waits for it.
func (u *unit) halt(ctx context.Context) error {
	u.mu.Lock()
	u.wanted = false
	broken := u.broken != nil
	u.mu.Unlock()
	u.nudge()
	if broken {
		return nil // it never ran
	}
	return u.await(ctx, func(u *unit) bool { return u.status.State == Stopped || u.status.State == Failed })
}

// end ends the watcher of a product that is gone.
func (u *unit) end() {
	u.mu.Lock()
	u.gone = true
	u.mu.Unlock()
	u.nudge()
}
