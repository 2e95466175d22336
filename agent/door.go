package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"bailey/agent/control"
	"bailey/agent/guard"
	"bailey/agent/journal"
	"bailey/agent/unlock"
	"bailey/agent/unlock/operatorkey"
	"bailey/agent/unlock/token"
	controlv1 "bailey/api/control/v1"
	"bailey/internal/kernelcmdline"
)

// GuardOff on the kernel's command line is the way past the guard when every operator's key is lost: it needs the console, or the
// right to change the boot loader, and a reboot.
const GuardOff = "bailey.guard=off"

// readCommandLine finds out whether this machine was booted without the guard, or in safe mode. It comes before whatever makes one.
func (a *Agent) readCommandLine() error {
	line, err := kernelcmdline.Read()
	if err != nil { // then nobody has switched it off
		a.log.Info("the kernel's command line cannot be read", "err", err)
		return nil
	}
	a.safeBoot = kernelcmdline.Has(line, SafeBoot)
	if !kernelcmdline.Has(line, GuardOff) {
		return nil
	}
	a.lock, a.guardOff = nil, true
	return nil
}

// newDoor makes what operators' tokens open.
func (a *Agent) newDoor() (err error) {
	o := a.cfg.Operator
	a.door, err = unlock.New(unlock.Config{
		State: a.cfg.Agent.State, BootID: a.bootID, Guard: a.lock, Absent: "the agent is still starting", Host: token.ThisHost,
		Keys:   func() (operatorkey.Trusted, error) { return operatorkey.Read(o.Keys, o.KeyDir) },
		Note:   func(fields map[string]any) { a.journal.Note(journal.KindUnlock, fields) },
		Commit: func(fields map[string]any) error { return a.journal.Commit(journal.KindUnlock, fields) },
		Health: a.health, Log: a.log,
	})
	return err
}

// runDoor begins when it is known whether there is a guard.
func (a *Agent) runDoor(ctx context.Context) error {
	select {
	case <-a.guarded:
	case <-ctx.Done():
		return nil
	}
	return a.door.Run(ctx)
}

// lock is the guard as a token opens it: whole, whatever the token's scopes are. The kernel's programs know one lock; scopes bound what
// the agent itself lets an operator do, and whether the service manager obeys.
type lock struct {
	*guard.Guard
	allowStop func(bool)
}

var _ unlock.Guard = lock{}

// Unlock opens the guard until a time since boot.
func (l lock) Unlock(scopes []string, until uint64) error {
	l.Guard.Unlock(until)
	l.allowStop(slices.Contains(scopes, token.Stop.String()))
	return nil
}

// Relock closes it.
func (l lock) Relock() error {
	l.Guard.Relock() // first: it waits for nobody
	l.allowStop(false)
	return nil
}

// noteGuardOff writes down that this boot is without the guard, by whoever has the console.
func (a *Agent) noteGuardOff() {
	if a.guardOff {
		a.journal.Note(journal.KindUnlock, map[string]any{"result": "off", "why": "the machine was booted with " + GuardOff})
	}
}

// door opens and closes the guard for an operator.
type door Agent

var _ control.Door = (*door)(nil)

// startPatience is how long who opens or closes the guard waits for an agent that is still taking it over, as after an upgrade.
const startPatience = 20 * time.Second

// awaitGuard waits until it is known whether there is a guard, and not for ever: then the door says that it is not known.
func (d *door) awaitGuard(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	select {
	case <-d.guarded:
	case <-ctx.Done():
	}
}

// Unlock opens the guard for a token.
func (d *door) Unlock(ctx context.Context, text string) (*controlv1.Guard, error) {
	d.awaitGuard(ctx)
	s, err := d.door.Unlock(text)
	if err != nil {
		return nil, tokenFault(err)
	}
	return guardMessage(s), nil
}

// Lock closes it.
func (d *door) Lock(ctx context.Context) (*controlv1.Guard, error) {
	d.awaitGuard(ctx)
	s, err := d.door.Lock()
	if err != nil {
		return nil, tokenFault(err)
	}
	return guardMessage(s), nil
}

// tokenFault says what kind of mistake err is.
func tokenFault(err error) error {
	var e *token.Error
	if !errors.As(err, &e) {
		return err
	}
	f := &control.Fault{Class: control.Refused, Message: e.Error(), Hint: e.Hint()}
	if e.Reason == "form" || e.Reason == "damaged" {
		f.Class = control.Invalid
	}
	return f
}

func guardMessage(s unlock.State) *controlv1.Guard {
	m := &controlv1.Guard{
		Active: s.Active, Reason: s.Absent, Locked: s.Locked, Scopes: s.Scopes, Until: s.Until, Operator: s.Name, Key: s.Key,
		Token: s.Nonce, Host: s.Host, Keys: s.Keys,
	}
	if !s.Expires.IsZero() {
		m.Expires = s.Expires.UnixNano()
	}
	return m
}
