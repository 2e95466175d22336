package publish

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"

	"bailey/update/bundle"
	"bailey/update/release"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// maxDeltas is how many versions there is a delta from to the newest one: a machine that is further behind fetches the bundle.
const maxDeltas = 3

// minDelta is the smallest bundle that a delta is worth a request for.
const minDelta = 64 << 10

// deltas adds deltas from the versions before a release, as far as they save something, and returns which. They are an offer: where one cannot be
// made, machines fetch the bundle.
func (r *Repository) deltas(t *metadata.TargetsType, p Published) ([]string, error) {
	if p.Length < minDelta {
		return nil, nil
	}
	live, err := read(t)
	if err != nil {
		return nil, err
	}
	_, v, platform, err := release.ParsePath(p.Path)
	if err != nil {
		return nil, err
	}
	var made []string
	for _, l := range slices.Backward(live) {
		_, base, on, err := release.ParsePath(l.path)
		if err != nil || on != platform || base.Compare(v) >= 0 {
			continue
		}
		if len(made) == maxDeltas {
			break
		}
		path := release.DeltaPath(p.Path, base)
		text, err := r.delta(served(l.path, hex.EncodeToString(t.Targets[l.path].Hashes["sha256"])), served(p.Path, p.SHA256))
		if errors.Is(err, bundle.ErrLimit) || err == nil && int64(len(text))*4 > p.Length*3 {
			continue // too large to be made, or to be worth it
		}
		if err != nil {
			return nil, fmt.Errorf("make a delta from %s: %w", base, err)
		}
		sum := sha256.Sum256(text)
		one := Published{Path: path, SHA256: hex.EncodeToString(sum[:]), Length: int64(len(text))}
		if err := r.write(bytes.NewReader(text), one); err != nil {
			return nil, fmt.Errorf("write a delta from %s: %w", base, err)
		}
		t.Targets[path] = &metadata.TargetFiles{Length: one.Length, Hashes: metadata.Hashes{"sha256": sum[:]}, Path: path}
		made = append(made, base.String())
	}
	return made, nil
}

// delta makes the delta between two bundles that are served.
func (r *Repository) delta(base, text string) ([]byte, error) {
	old, err := os.Open(r.cfg.target(base))
	if err != nil {
		return nil, err
	}
	defer old.Close()
	f, err := os.Open(r.cfg.target(text))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	err = bundle.MakeDelta(&b, old, f, bundle.Limits{})
	return b.Bytes(), err
}
