package publish

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"

	"bailey/internal/durable"
	"bailey/update/bundle"
	"bailey/update/release"
	"bailey/update/trust"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Published is what was added to a stream.
type Published struct {
	Path    string   `json:"path"`
	SHA256  string   `json:"sha256"`
	Length  int64    `json:"length"`
	Deltas  []string `json:"deltas,omitempty"`  // the versions that there is a delta from
	Dropped []string `json:"dropped,omitempty"` // targets that went to make room
}

// Release adds a bundle to its stream, signed by the stream's keys. It becomes visible with the next Announce: whoever signs releases needs no
// key of the repository's.
func (r *Repository) Release(ctx context.Context, file string, signers []Signer) (Published, error) {
	m, sum, n, err := inspect(file)
	if err != nil {
		return Published{}, fmt.Errorf("publish %s: %w", file, err)
	}
	d := m.Release
	platform := ""
	if len(d.Platforms) == 1 {
		platform = d.Platforms[0]
	}
	p := Published{Path: d.Stream().Path(d.Version, platform), SHA256: sum, Length: n}
	if err := r.place(file, p); err != nil {
		return Published{}, fmt.Errorf("publish %s: %w", file, err)
	}
	err = r.change(ctx, d.Stream().Role(), signers, func(t *metadata.TargetsType) error {
		if p.Dropped, err = admit(t, p, d); err != nil || d.Kind != release.Content {
			return err
		}
		p.Deltas, err = r.deltas(t, p)
		return err
	})
	if err != nil {
		return Published{}, fmt.Errorf("publish %s: %w", file, err)
	}
	return p, nil
}

// inspect reads a whole bundle.
func inspect(file string) (m bundle.Manifest, sum string, n int64, err error) {
	f, err := os.Open(file)
	if err != nil {
		return m, "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	if m, err = bundle.Verify(io.TeeReader(f, h), bundle.Limits{}); err != nil {
		return m, "", 0, err
	}
	if rest, err := io.Copy(h, f); err != nil || rest != 0 {
		return m, "", 0, errors.Join(fmt.Errorf("%d bytes follow the bundle", rest), err)
	}
	info, err := f.Stat()
	if err != nil {
		return m, "", 0, err
	}
	return m, hex.EncodeToString(h.Sum(nil)), info.Size(), nil
}

// place copies a bundle to where it is served from, under a name that has its digest.
func (r *Repository) place(file string, p Published) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	return r.write(in, p)
}

// write writes what is served as a target.
func (r *Repository) write(in io.Reader, p Published) error {
	to := r.cfg.target(served(p.Path, p.SHA256))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, h), in)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err == nil && hex.EncodeToString(h.Sum(nil)) != p.SHA256 {
		err = errors.New("it changed while it was read")
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err != nil {
		return errors.Join(err, os.Remove(to+".new"))
	}
	return durable.SyncDir(filepath.Dir(to))
}

// served is the name of a target's file.
func served(p, sum string) string { return path.Dir(p) + "/" + sum + "." + path.Base(p) }

// admit adds a release to a role, and drops the oldest ones over the limit.
//
// Deltas go first: they lead to what was the newest until now.
func admit(t *metadata.TargetsType, p Published, d release.Description) ([]string, error) {
	for path := range t.Targets {
		if _, _, err := release.ParseDeltaPath(path); err == nil {
			delete(t.Targets, path)
		}
	}
	live, err := read(t)
	if err != nil {
		return nil, err
	}
	for _, l := range live {
		if l.d.Version.Compare(d.Version) == 0 && (l.d.Version.String() != d.Version.String() || l.path == p.Path) {
			return nil, fmt.Errorf("version %s: %w: what a version is never changes, so publish another", d.Version, ErrExists)
		}
		if l.d.Version.Compare(d.Version) < 0 && l.d.Epoch > d.Epoch {
			return nil, fmt.Errorf("its epoch is %d, and that of %s, which is older, is %d: machines would refuse it", d.Epoch, l.d.Version, l.d.Epoch)
		}
	}
	custom, err := d.JSON()
	if err != nil {
		return nil, err
	}
	sum, err := hex.DecodeString(p.SHA256)
	if err != nil {
		return nil, err
	}
	raw := json.RawMessage(custom)
	t.Targets[p.Path] = &metadata.TargetFiles{Length: p.Length, Hashes: metadata.Hashes{"sha256": sum}, Custom: &raw, Path: p.Path}
	return drop(t, append(live, one{p.Path, d}), p.Path)
}

// MaxReleases is how many releases a stream has; it leaves room for deltas among the targets of a role.
const MaxReleases = trust.MaxLive - maxDeltas

// one is a live target.
type one struct {
	path string
	d    release.Description
}

// read lists the live targets, oldest version first.
func read(t *metadata.TargetsType) ([]one, error) {
	var out []one
	for p, f := range t.Targets {
		if _, _, err := release.ParseDeltaPath(p); err == nil {
			continue
		}
		if f.Custom == nil {
			return nil, fmt.Errorf("nothing is said about %s", p)
		}
		d, err := release.Parse(*f.Custom)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		out = append(out, one{p, d})
	}
	slices.SortFunc(out, func(a, b one) int { return a.d.Version.Compare(b.d.Version) })
	return out, nil
}

// drop removes the oldest targets over the limit, but none that the newest release can be rolled back to.
func drop(t *metadata.TargetsType, live []one, added string) ([]string, error) {
	slices.SortStableFunc(live, func(a, b one) int { return a.d.Version.Compare(b.d.Version) })
	keep := live[len(live)-1].d.RollbackTo
	var dropped []string
	for _, l := range live {
		if len(t.Targets) <= MaxReleases {
			break
		}
		if slices.ContainsFunc(keep, func(v release.Version) bool { return v.Compare(l.d.Version) == 0 }) {
			continue
		}
		if l.path == added {
			return nil, fmt.Errorf("%s is older than the %d releases that there are", l.d.Version, MaxReleases)
		}
		delete(t.Targets, l.path)
		dropped = append(dropped, l.path)
	}
	return dropped, nil
}

// change signs the next version of a role.
func (r *Repository) change(ctx context.Context, role string, signers []Signer, how func(*metadata.TargetsType) error) error {
	d, found := delegated(r.index(), role)
	if !found {
		return fmt.Errorf("%w: nobody was given %s", ErrNoRole, role)
	}
	ring, err := newRing(signers)
	if err != nil {
		return err
	}
	m, err := r.base(role)
	if err != nil {
		return err
	}
	if err := how(&m.Signed); err != nil {
		return err
	}
	m.Signed.Version++
	m.Signed.Expires = r.cfg.in(r.cfg.Life.Role)
	text, err := sign(ctx, ring, role, m, holders{ids: d.KeyIDs, threshold: d.Threshold})
	if err != nil {
		return err
	}
	return r.cfg.put(role, numbered(m.Signed.Version, role), text)
}

// base is what a role's next version begins with: its newest file. What was signed by keys that the role was taken from is not carried over,
// only counted on from.
func (r *Repository) base(role string) (*targets, error) {
	m, _, err := r.newest(role)
	if err != nil && !errors.Is(err, errUnsigned) {
		return nil, err
	}
	if m != nil {
		return m, nil
	}
	empty := metadata.Targets()
	empty.Signed.Version = 0
	versions, err := r.versions(role)
	if err == nil && len(versions) > 0 {
		empty.Signed.Version = versions[len(versions)-1]
	}
	return empty, err
}

// SetPolicy replaces the recovery policy. It becomes visible with the next Announce.
func (r *Repository) SetPolicy(ctx context.Context, p release.Policy, signers []Signer) error {
	text, err := p.JSON()
	if err != nil {
		return err
	}
	digest := sha256.Sum256(text)
	to := r.cfg.target(served(release.PolicyPath, hex.EncodeToString(digest[:])))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fmt.Errorf("write the recovery policy: %w", err)
	}
	if err := durable.Replace(to, text, 0o644); err != nil {
		return fmt.Errorf("write the recovery policy: %w", err)
	}
	return r.change(ctx, release.PolicyRole, signers, func(t *metadata.TargetsType) error {
		t.Targets = map[string]*metadata.TargetFiles{
			release.PolicyPath: {Length: int64(len(text)), Hashes: metadata.Hashes{"sha256": digest[:]}, Path: release.PolicyPath},
		}
		return nil
	})
}

// Policy returns the recovery policy as it was last signed, announced or not.
func (r *Repository) Policy() (release.Policy, error) {
	none := release.Policy{Schema: release.Schema}
	m, _, err := r.newest(release.PolicyRole)
	if err != nil || m == nil {
		return none, err
	}
	t := m.Signed.Targets[release.PolicyPath]
	if t == nil {
		return none, nil
	}
	text, err := os.ReadFile(r.cfg.target(served(release.PolicyPath, hex.EncodeToString(t.Hashes["sha256"]))))
	if err != nil {
		return none, fmt.Errorf("read the recovery policy: %w", err)
	}
	if err := t.VerifyLengthHashes(text); err != nil {
		return none, fmt.Errorf("read the recovery policy: %w", err)
	}
	return release.ParsePolicy(text)
}
