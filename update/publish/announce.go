package publish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// draft are the files of one change, before any is written.
type draft struct {
	root, targets, snapshot, timestamp []byte // nil: as it was
	rootVersion, snapshotVersion       int64
	targetsVersion                     int64
}

// write writes the files in the order in which a reader can do without the later ones.
func (d *draft) write(cfg Config) error {
	for _, f := range []struct {
		role    string
		version int64
		text    []byte
	}{
		{metadata.ROOT, max(d.rootVersion, 1), d.root},
		{metadata.TARGETS, max(d.targetsVersion, 1), d.targets},
		{metadata.SNAPSHOT, max(d.snapshotVersion, 1), d.snapshot},
	} {
		if f.text == nil {
			continue
		}
		if err := cfg.put(f.role, numbered(f.version, f.role), f.text); err != nil {
			return err
		}
	}
	if d.timestamp == nil {
		return nil
	}
	return cfg.put(metadata.TIMESTAMP, "timestamp.json", d.timestamp)
}

// Announce makes what was signed since the last time visible: new files of roles, of this machine or brought here by their vendors, and a new
// timestamp. Without news it renews the timestamp, and the snapshot when half of its time is over.
func (r *Repository) Announce(ctx context.Context, signers []Signer) error {
	return r.publish(ctx, signers, &draft{}, r.index(), false)
}

// publish signs a snapshot and a timestamp for a draft, writes all of it, and reads it back as everybody will.
func (r *Repository) publish(ctx context.Context, signers []Signer, d *draft, index *targets, anew bool) error {
	ring, err := newRing(signers)
	if err != nil {
		return err
	}
	// The roles are looked at as the new index delegates to them.
	r.trusted.Targets[metadata.TARGETS] = index
	if err := r.announce(ctx, ring, d, index, r.trusted.Snapshot, r.trusted.Timestamp, anew); err != nil {
		return errors.Join(err, r.load())
	}
	if err := d.write(r.cfg); err != nil {
		return errors.Join(err, r.load())
	}
	return r.load()
}

// announce adds snapshot and timestamp to a draft.
func (r *Repository) announce(ctx context.Context, ring ring, d *draft, index *targets, snapshot *metadata.Metadata[metadata.SnapshotType], timestamp *metadata.Metadata[metadata.TimestampType], anew bool) error {
	if err := r.clock(timestamp); err != nil {
		return err
	}
	meta := map[string]*metadata.MetaFiles{}
	for name, m := range snapshot.Signed.Meta {
		meta[name] = m
	}
	if d.targets != nil {
		meta["targets.json"] = names(index.Signed.Version, d.targets)
	}
	if r.trusted != nil {
		if err := r.roles(index, meta); err != nil {
			return err
		}
	}
	half := r.cfg.Now().Add(r.cfg.Life.Snapshot / 2)
	first := snapshot.Signed.Version == 0
	if anew || !equal(meta, snapshot.Signed.Meta) || half.After(snapshot.Signed.Expires) {
		next := metadata.Snapshot(r.cfg.in(r.cfg.Life.Snapshot))
		next.Signed.Version, next.Signed.Meta = snapshot.Signed.Version+1, meta
		text, err := sign(ctx, ring, "snapshot", next, r.top(metadata.SNAPSHOT))
		if err != nil {
			return err
		}
		d.snapshot, d.snapshotVersion = text, next.Signed.Version
	}
	next := metadata.Timestamp(r.cfg.in(r.cfg.Life.Timestamp))
	next.Signed.Version, next.Signed.Meta = timestamp.Signed.Version+1, timestamp.Signed.Meta
	if first {
		next.Signed.Version = 1
	}
	if d.snapshot != nil {
		next.Signed.Meta = map[string]*metadata.MetaFiles{"snapshot.json": names(d.snapshotVersion, d.snapshot)}
	}
	// Clients take it for time that has passed for certain.
	next.Signed.UnrecognizedFields = map[string]any{"issued": r.cfg.Now().UTC().Format(time.RFC3339)}
	var err error
	d.timestamp, err = sign(ctx, ring, "timestamp", next, r.top(metadata.TIMESTAMP))
	return err
}

// ErrClock says that this machine's clock is wrong: machines take the time in a timestamp for one that has passed, and for no earlier one after
// that.
var ErrClock = errors.New("the clock of this machine is wrong")

// clock refuses to sign a time that is before the last one, or so late that the root has expired.
func (r *Repository) clock(last *metadata.Metadata[metadata.TimestampType]) error {
	now := r.cfg.Now()
	if r.root.Signed.IsExpired(now) {
		return fmt.Errorf("sign the timestamp: %w, or the root expired on %s and has to be rotated", ErrClock, r.root.Signed.Expires.Format(time.DateOnly))
	}
	text, ok := last.Signed.UnrecognizedFields["issued"].(string)
	if !ok {
		return nil // there is none yet
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return fmt.Errorf("sign the timestamp: %w", err)
	}
	if now.Before(at.Add(-time.Minute)) {
		return fmt.Errorf("sign the timestamp: %w: it says %s, and the last was signed at %s", ErrClock, now.UTC().Format(time.RFC3339), text)
	}
	return nil
}

// roles names the newest file of each role. A role that was taken from others and not signed since stays named as it is, and no client
// believes it; a file once named can never be left out.
func (r *Repository) roles(index *targets, meta map[string]*metadata.MetaFiles) error {
	if index.Signed.Delegations == nil {
		return nil
	}
	for _, d := range index.Signed.Delegations.Roles {
		m, text, err := r.newest(d.Name)
		if errors.Is(err, errUnsigned) && meta[d.Name+".json"] != nil {
			continue
		}
		if err != nil {
			return fmt.Errorf("announce %s: %w", d.Name, err)
		}
		if m == nil {
			continue
		}
		if was := meta[d.Name+".json"]; was != nil && was.Version > m.Signed.Version {
			return fmt.Errorf("announce %s: version %d was announced, and the newest that is left is %d", d.Name, was.Version, m.Signed.Version)
		}
		meta[d.Name+".json"] = names(m.Signed.Version, text)
	}
	return nil
}

func names(version int64, text []byte) *metadata.MetaFiles {
	sum := sha256.Sum256(text)
	return &metadata.MetaFiles{Version: version, Length: int64(len(text)), Hashes: metadata.Hashes{"sha256": sum[:]}}
}

func equal(a, b map[string]*metadata.MetaFiles) bool {
	x, xerr := json.Marshal(a)
	y, yerr := json.Marshal(b)
	return xerr == nil && yerr == nil && bytes.Equal(x, y)
}
