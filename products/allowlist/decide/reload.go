package decide

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"bailey/products/allowlist/policy"
	"bailey/sdk"
	"bailey/sdk/packagedb"
)

const lastGood = "policy.last-good.toml"

// fileState tells whether a file is another than before.
type fileState struct {
	modified time.Time
	size     int64
}

// Run reads the package databases, then watches them and the policy until ctx ends.
func (d *Decider) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	if err := d.db.Load(ctx); err != nil {
		d.loadError.Store(&err)
		if ctx.Err() == nil {
			d.reports.general(rulePackages, "package rules allow nothing: "+err.Error(), sdk.High)
		}
	}
	close(d.loaded)
	d.db.Watch(func(s *packagedb.Snapshot) { d.invalidate("package database") })
	parts.Go(func() { _ = d.db.Run(ctx) }) // nil when ctx ends
	tick := time.NewTicker(d.cfg.Poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			d.reload()
		}
	}
}

// firstPolicy reads the policy; where it has a fault, the last one that had none.
func (d *Decider) firstPolicy() error {
	_, err := d.readPolicy(d.cfg.PolicyFile)
	if err == nil {
		return nil
	}
	if d.cfg.State == "" {
		return err
	}
	kept := filepath.Join(d.cfg.State, lastGood)
	if _, keptErr := d.readPolicy(kept); keptErr != nil {
		return err
	}
	d.reports.general(rulePolicy, "the last good policy is in force, the new one has a fault: "+err.Error(), sdk.High)
	return nil
}

// reload reads the policy if it has changed. One with a fault changes nothing.
func (d *Decider) reload() {
	d.mu.Lock()
	seen := d.seen // nothing until firstPolicy has read it: what it reads is no news
	d.mu.Unlock()
	now, err := stateOf(d.cfg.PolicyFile)
	if seen == (fileState{}) || err != nil || now == seen {
		return
	}
	if _, err := d.readPolicy(d.cfg.PolicyFile); err != nil {
		d.reports.general(rulePolicy, "the old policy stays in force, the new one has a fault: "+err.Error(), sdk.High)
		return
	}
	d.reports.general(rulePolicy, "a new policy is in force", sdk.Info)
	d.invalidate("policy")
}

func stateOf(path string) (fileState, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileState{}, fmt.Errorf("stat policy: %w", err)
	}
	return fileState{modified: info.ModTime(), size: info.Size()}, nil
}

// readPolicy puts the policy of a file in force, under the operator's settings, and keeps it as the last good one.
func (d *Decider) readPolicy(path string) (*policy.Policy, error) {
	state, err := stateOf(path)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = state
	p, err := policy.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	if p, err = p.Apply(d.fields); err != nil {
		return nil, err
	}
	d.policy.Store(p)
	d.keep(path, text)
	return p, nil
}

// keep writes the last good policy; that it cannot is a reason to say so, not to stop.
func (d *Decider) keep(path string, text []byte) {
	if d.cfg.State == "" || filepath.Base(path) == lastGood {
		return
	}
	next := filepath.Join(d.cfg.State, lastGood+".new")
	err := os.WriteFile(next, text, 0o600)
	if err == nil {
		err = os.Rename(next, filepath.Join(d.cfg.State, lastGood))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.cfg.Log.Warn("last good policy not kept", "err", err)
	}
}

// invalidate makes the agent forget the allows that it has cached: a subscription, even an equal one, does.
func (d *Decider) invalidate(cause string) {
	d.mu.Lock()
	s := d.session
	d.mu.Unlock()
	if s == nil {
		return
	}
	questions := []sdk.Kind{sdk.Exec}
	if d.opens {
		questions = append(questions, sdk.Open)
	}
	if err := s.Subscribe(sdk.Subscription{Questions: questions}); err != nil {
		d.cfg.Log.Warn("cached answers not withdrawn", "cause", cause, "err", err)
	}
}
