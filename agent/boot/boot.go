package boot

import (
	"errors"
	"sync"
	"time"
)

// Config is what a Boot needs.
type Config struct {
	State    string // the state directory
	ID       string // of this boot; empty where the kernel does not say
	Platform string // as in Facts
	Limit    int    // as in Facts
}

// Boot is the boot that an agent runs in. Safe for concurrent use; one agent of a state directory writes at a time.
type Boot struct {
	cfg Config

	mu      sync.Mutex
	record  Record // what is on the disk, or would be
	problem error  // of the disk
}

// Open reads what is remembered.
func Open(cfg Config) *Boot {
	b := &Boot{cfg: cfg}
	b.record, b.problem = Read(cfg.State)
	return b
}

// Record returns what is remembered now.
func (b *Boot) Record() Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.record.clone()
}

// Problem is why the record could not be read or written the last time, nil if it could.
func (b *Boot) Problem() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.problem
}

// Judge is the package's Judge, for this boot.
func (b *Boot) Judge(releases map[string]string, forced string) Judgement {
	return Judge(b.Record(), Facts{Boot: b.cfg.ID, Releases: releases, Platform: b.cfg.Platform, Limit: b.cfg.Limit, Forced: forced, Now: time.Now().UTC()})
}

// Begin writes down a judgement, and what went back because of it. What was wrong with the old record stays the Problem until the next write.
func (b *Boot) Begin(j Judgement, back []Back) {
	b.mu.Lock()
	defer b.mu.Unlock()
	damaged := b.problem
	r := j.Next.clone()
	if len(back) > 0 {
		r.Back = back
	}
	b.record = r
	b.problem = errors.Join(damaged, Write(b.cfg.State, r))
}

// change edits the record. It is read again before: until an agent has its turn, another one may write it.
func (b *Boot) change(edit func(*Record)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r, err := Read(b.cfg.State); err == nil && r.Boot == b.record.Boot {
		b.record = r
	}
	edit(&b.record)
	b.problem = Write(b.cfg.State, b.record)
	return b.problem
}

// Running takes note that an agent runs in this boot, possibly again.
func (b *Boot) Running() error {
	if !b.Record().Ended {
		return nil
	}
	return b.change(func(r *Record) { r.Ended = false })
}

// Good takes note that this boot went well with these releases.
func (b *Boot) Good(releases map[string]string) error {
	return b.change(func(r *Record) { r.MarkGood(releases) })
}

// End takes note that the agent ends in order.
func (b *Boot) End() error { return b.change(func(r *Record) { r.Ended = true }) }

// Forget drops what was counted, by the operator's word.
func (b *Boot) Forget() error { return b.change((*Record).Forget) }

// Try takes note that a release is about to be rehearsed, and returns how often the machine went down while it was.
func (b *Boot) Try(release string) (downs int, err error) {
	err = b.change(func(r *Record) { r.Trying, downs = release, r.Downs[release] })
	return downs, err
}

// Tried takes note that the machine is still there after it.
func (b *Boot) Tried(release string) error {
	return b.change(func(r *Record) {
		r.Trying = ""
		delete(r.Downs, release)
	})
}
