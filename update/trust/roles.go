package trust

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

const timestampFile = metadata.TIMESTAMP + ".json"

// kept returns the kept file of a role, if it passes the guard: what an older agent let through is not believed either. A disk that does not give it
// back is an error, because what it holds is what keeps older files out.
func (l *look) kept(role string) ([]byte, error) {
	text, err := l.c.state.read(l.c.state.rolePath(role), sizeOf(role))
	if err != nil || text == nil {
		return nil, err
	}
	if _, err := guard(role, text, l.c.cfg.Rules); err != nil {
		return nil, nil
	}
	return text, nil
}

// keep writes a verified file down.
func (l *look) keep(role string, text []byte) error {
	return l.c.state.write(l.c.state.rolePath(role), text)
}

func (l *look) timestamp(ctx context.Context) error {
	const what = timestampFile
	kept, err := l.kept(metadata.TIMESTAMP)
	if err != nil {
		return err
	}
	if kept != nil {
		// An error leaves nothing, or, if it has only expired, what the next is compared with.
		_ = guarded(what, func() error { _, err := l.trusted.UpdateTimestamp(kept); return err })
	}
	text, tag, err := l.freshTimestamp(ctx)
	if err != nil {
		return err
	}
	b, err := guard(metadata.TIMESTAMP, text, l.c.cfg.Rules)
	if err != nil {
		return err
	}
	if b.Version < l.c.cfg.Minimum.Timestamp || b.Meta["snapshot.json"].Version < l.c.cfg.Minimum.Snapshot {
		return refuse(what, ErrRollback, "version %d of %d, and the agent was built when there were %d of %d", b.Version, b.Meta["snapshot.json"].Version, l.c.cfg.Minimum.Timestamp, l.c.cfg.Minimum.Snapshot)
	}
	same := false
	err = guarded(what, func() error {
		_, err := l.trusted.UpdateTimestamp(text)
		if errors.Is(err, &metadata.ErrEqualVersionNumber{}) {
			same, err = true, nil
		}
		return err
	})
	if err != nil {
		return err
	}
	if !same {
		if err := l.keep(metadata.TIMESTAMP, text); err != nil {
			return err
		}
	}
	l.c.stamp = cached{mirror: l.mirror, tag: tag, text: text}
	return l.raiseFloor()
}

// freshTimestamp asks the mirror, and saves it the answer if nothing changed.
func (l *look) freshTimestamp(ctx context.Context) (text []byte, tag string, err error) {
	last := l.c.stamp
	if last.mirror == l.mirror && last.text != nil {
		tag = last.tag
	}
	text, tag, err = small(ctx, l.c.mirrors[l.mirror].metadata, timestampFile, maxRole, tag, l.c.cfg.Pace)
	if err == nil && text == nil {
		text = last.text
	}
	return text, tag, err
}

// raiseFloor notes when the trusted timestamp was signed, which is the kept one if both are one version.
func (l *look) raiseFloor() error {
	ts := &l.trusted.Timestamp.Signed
	text, ok := ts.UnrecognizedFields["issued"].(string)
	if !ok && l.c.cfg.Rules == SpecificationOnly {
		return nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.After(ts.Expires) {
		return refuse(timestampFile, ErrMalformed, "it says that it was signed at %.40q", text)
	}
	bearers := l.bearers()
	if l.known.Role == bearers && at.Unix() <= l.known.Floor {
		return nil
	}
	l.known.Floor, l.known.Role = at.Unix(), bearers
	if err := l.c.state.remember(l.known); err != nil {
		return err
	}
	l.setTime()
	return nil
}

func (l *look) snapshot(ctx context.Context) error {
	const what = "snapshot.json"
	m := l.trusted.Timestamp.Signed.Meta[what]
	kept, err := l.kept(metadata.SNAPSHOT)
	if err != nil {
		return err
	}
	if kept != nil {
		// Also when it is not the one that is meant now: no role may be older than it says.
		err := guarded(what, func() error { _, err := l.trusted.UpdateSnapshot(kept, true); return err })
		if err == nil && m.VerifyLengthHashes(kept) == nil {
			return nil
		}
	}
	text, b, err := l.fetch(ctx, metadata.SNAPSHOT, m)
	if err != nil {
		return err
	}
	if b.Version != m.Version {
		return refuse(what, ErrMismatch, "version %d, where the timestamp says %d", b.Version, m.Version)
	}
	if err := guarded(what, func() error { _, err := l.trusted.UpdateSnapshot(text, false); return err }); err != nil {
		return err
	}
	return l.keep(metadata.SNAPSHOT, text)
}

func (l *look) targets(ctx context.Context) error {
	return l.role(ctx, metadata.TARGETS, metadata.ROOT)
}

// role loads what a role signs, on the word of its delegator.
func (l *look) role(ctx context.Context, role, delegator string) error {
	if l.trusted.Targets[role] != nil {
		return nil
	}
	what := role + ".json"
	m := l.trusted.Snapshot.Signed.Meta[what]
	if m == nil {
		return refuse(what, ErrNotFound, "the snapshot does not name it")
	}
	update := func(text []byte) error {
		return guarded(what, func() error { _, err := l.trusted.UpdateDelegatedTargets(text, role, delegator); return err })
	}
	kept, err := l.kept(role)
	if err != nil {
		return err
	}
	if kept != nil && update(kept) == nil {
		return nil
	}
	text, b, err := l.fetch(ctx, role, m)
	if err != nil {
		return err
	}
	if b.Version != m.Version {
		return refuse(what, ErrMismatch, "version %d, where the snapshot says %d", b.Version, m.Version)
	}
	if err := update(text); err != nil {
		return err
	}
	return l.keep(role, text)
}

// fetch reads a role's file as the file above it names it, and lets it through the guard.
func (l *look) fetch(ctx context.Context, role string, m *metadata.MetaFiles) ([]byte, *body, error) {
	limit := sizeOf(role)
	name := role + ".json"
	if m.Length > limit {
		return nil, nil, refuse(name, ErrSize, "%d bytes, at most %d", m.Length, limit)
	}
	if m.Length > 0 {
		limit = m.Length
	}
	if l.trusted.Root.Signed.ConsistentSnapshot {
		name = fmt.Sprintf("%d.%s", m.Version, name)
	}
	text, _, err := small(ctx, l.c.mirrors[l.mirror].metadata, name, limit, "", l.c.cfg.Pace)
	if errors.Is(err, ErrNotFound) {
		return nil, nil, refuse(name, ErrUnavailable, "the mirror names it and has it not")
	}
	if err != nil {
		return nil, nil, err
	}
	// Before anything reads it: what is not the very file that was signed for is of no interest.
	if err := guarded(name, func() error { return m.VerifyLengthHashes(text) }); err != nil {
		return nil, nil, err
	}
	b, err := guard(role, text, l.c.cfg.Rules)
	return text, b, err
}
