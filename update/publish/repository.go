package publish

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"bailey/internal/durable"
	"bailey/update/release"
	"bailey/update/trust"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
	"golang.org/x/sys/unix"
)

// Config says where a repository is and how long its signatures last.
type Config struct {
	Dir  string           // with the directories metadata and targets
	Root []byte           // a root that is known to be this repository's, any of its versions: what is there is believed from there on
	Now  func() time.Time // nil means time.Now
	Life Life
}

// Life is how long each role's signature lasts. A zero field is its default. What expires sooner is noticed sooner when it is held back, and must
// be signed more often.
type Life struct {
	Root, Targets, Role, Snapshot, Timestamp time.Duration // 1 year, 90, 60, 7 days, 1 day
}

func (l Life) orDefault() Life {
	const day = 24 * time.Hour
	for p, d := range map[*time.Duration]time.Duration{&l.Root: 365 * day, &l.Targets: 90 * day, &l.Role: 60 * day, &l.Snapshot: 7 * day, &l.Timestamp: day} {
		if *p == 0 {
			*p = d
		}
	}
	return l
}

// Repository is a repository that was verified and is locked against other writers until it is closed. It is not safe for concurrent use.
type Repository struct {
	cfg     Config
	unlock  func()
	root    *metadata.Metadata[metadata.RootType] // the newest
	trusted *trustedmetadata.TrustedMetadata      // everything else, under the newest root or the one before
}

type targets = metadata.Metadata[metadata.TargetsType]

// Errors of a repository, for errors.Is.
var (
	ErrExists = errors.New("already there")
	ErrNoRole = errors.New("no such role")
)

func (c Config) orDefault() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Life = c.Life.orDefault()
	return c
}

func (c Config) metadata(name string) string { return filepath.Join(c.Dir, "metadata", name) }

func (c Config) target(path string) string {
	return filepath.Join(c.Dir, "targets", filepath.FromSlash(path))
}

func (c Config) in(d time.Duration) time.Time { return c.Now().UTC().Truncate(time.Second).Add(d) }

// put writes a file of metadata, after a look at it with a client's eyes.
func (c Config) put(role, name string, text []byte) error {
	if err := trust.Check(role, text); err != nil {
		return fmt.Errorf("write %s: clients would refuse it: %w", name, err)
	}
	if err := durable.Replace(c.metadata(name), text, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// numbered is the name of a role's file.
func numbered(version int64, role string) string { return fmt.Sprintf("%d.%s.json", version, role) }

// Open verifies a repository and locks it.
func Open(cfg Config) (*Repository, error) {
	cfg = cfg.orDefault()
	unlock, err := lock(cfg.Dir)
	if err != nil {
		return nil, err
	}
	r := &Repository{cfg: cfg, unlock: unlock}
	if err := r.load(); err != nil {
		unlock()
		return nil, fmt.Errorf("open the repository %s: %w", cfg.Dir, err)
	}
	return r, nil
}

// Close lets others write.
func (r *Repository) Close() { r.unlock() }

func lock(dir string) (func(), error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the repository: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the repository %s: somebody else changes it: %w", dir, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// load verifies what is there, but not that it has not expired: what has is signed again.
func (r *Repository) load() error {
	roots, err := r.roots()
	if err != nil {
		return err
	}
	if r.trusted, err = under(roots); err != nil {
		return err
	}
	r.root = r.trusted.Root
	err = r.below()
	if errors.Is(err, &metadata.ErrUnsignedMetadata{}) && len(roots) > 1 {
		// A rotation that was interrupted: the rest is still signed under the root before.
		if r.trusted, err = under(roots[:len(roots)-1]); err == nil {
			err = r.below()
		}
	}
	return err
}

// roots returns the files of all roots from the known one on.
func (r *Repository) roots() ([][]byte, error) {
	if err := trust.Check(metadata.ROOT, r.cfg.Root); err != nil {
		return nil, err
	}
	first, err := metadata.Root().FromBytes(r.cfg.Root)
	if err != nil {
		return nil, err
	}
	out := [][]byte{r.cfg.Root}
	for v := first.Signed.Version + 1; ; v++ {
		text, err := os.ReadFile(r.cfg.metadata(numbered(v, metadata.ROOT)))
		if errors.Is(err, fs.ErrNotExist) {
			return out, nil
		}
		if err == nil {
			err = trust.Check(metadata.ROOT, text)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, text)
	}
}

// under verifies a chain of roots.
func under(roots [][]byte) (*trustedmetadata.TrustedMetadata, error) {
	t, err := trustedmetadata.New(roots[0])
	if err != nil {
		return nil, err
	}
	t.RefTime = time.Unix(0, 0)
	for _, text := range roots[1:] {
		if _, err := t.UpdateRoot(text); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// below verifies timestamp, snapshot and targets.
func (r *Repository) below() error {
	text, err := r.read(metadata.TIMESTAMP, "timestamp.json")
	if err != nil {
		return err
	}
	if _, err := r.trusted.UpdateTimestamp(text); err != nil {
		return fmt.Errorf("timestamp.json: %w", err)
	}
	name := numbered(r.trusted.Timestamp.Signed.Meta["snapshot.json"].Version, metadata.SNAPSHOT)
	if text, err = r.read(metadata.SNAPSHOT, name); err != nil {
		return err
	}
	if _, err := r.trusted.UpdateSnapshot(text, false); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	name = numbered(r.trusted.Snapshot.Signed.Meta["targets.json"].Version, metadata.TARGETS)
	if text, err = r.read(metadata.TARGETS, name); err != nil {
		return err
	}
	if _, err := r.trusted.UpdateTargets(text); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (r *Repository) read(role, name string) ([]byte, error) {
	text, err := os.ReadFile(r.cfg.metadata(name))
	if err != nil {
		return nil, err
	}
	return text, trust.Check(role, text)
}

// index is the top-level targets, which say who the vendors are.
func (r *Repository) index() *targets { return r.trusted.Targets[metadata.TARGETS] }

// delegated returns the delegation to a role.
func delegated(index *targets, role string) (metadata.DelegatedRole, bool) {
	if d := index.Signed.Delegations; d != nil {
		for _, one := range d.Roles {
			if one.Name == role {
				return one, true
			}
		}
	}
	return metadata.DelegatedRole{}, false
}

// top returns the keys of a top-level role under the newest root.
func (r *Repository) top(role string) holders {
	h := r.root.Signed.Roles[role]
	return holders{ids: h.KeyIDs, threshold: h.Threshold}
}

// newest returns the newest file of a delegated role that its present keys have signed, announced or not. It is nil if there is none.
func (r *Repository) newest(role string) (*targets, []byte, error) {
	versions, err := r.versions(role)
	if err != nil || len(versions) == 0 {
		return nil, nil, err
	}
	v := versions[len(versions)-1]
	text, err := r.read(role, numbered(v, role))
	if err != nil {
		return nil, nil, err
	}
	m, err := metadata.Targets().FromBytes(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", numbered(v, role), err)
	}
	if m.Signed.Version != v {
		return nil, nil, fmt.Errorf("%s: it says that it is version %d", numbered(v, role), m.Signed.Version)
	}
	err = r.index().VerifyDelegate(role, m)
	if errors.Is(err, &metadata.ErrUnsignedMetadata{}) {
		return nil, nil, fmt.Errorf("%s: %w", numbered(v, role), errUnsigned)
	}
	return m, text, err
}

// errUnsigned says that a role's newest file is not signed by those who hold the role now: it was taken from others.
var errUnsigned = errors.New("its present keys have not signed it")

// versions lists the versions of a role's files, in order.
func (r *Repository) versions(role string) ([]int64, error) {
	entries, err := os.ReadDir(r.cfg.metadata(""))
	if err != nil {
		return nil, err
	}
	var out []int64
	for _, e := range entries {
		number, rest, _ := strings.Cut(e.Name(), ".")
		v, err := strconv.ParseInt(number, 10, 64)
		if err == nil && rest == role+".json" && numbered(v, role) == e.Name() {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out, nil
}

// Streams lists the streams that have a role.
func (r *Repository) Streams() []release.Stream {
	var out []release.Stream
	if d := r.index().Signed.Delegations; d != nil {
		for _, one := range d.Roles {
			if s, err := release.ParseRole(one.Name); err == nil {
				out = append(out, s)
			}
		}
	}
	return out
}

// CanAnnounce reports whether the keys for the snapshot and the timestamp are at hand.
func (r *Repository) CanAnnounce(signers []Signer) bool {
	ring, err := newRing(signers)
	return err == nil && ring.has(r.top(metadata.SNAPSHOT)) && ring.has(r.top(metadata.TIMESTAMP))
}

// Renew signs a role again as it is, so that it lasts: that of a stream, the policy, or the targets. It becomes visible with the next Announce, the targets
// at once.
func (r *Repository) Renew(ctx context.Context, role string, signers []Signer) error {
	if role != metadata.TARGETS {
		return r.change(ctx, role, signers, func(*metadata.TargetsType) error { return nil })
	}
	return r.reindex(ctx, signers, func(*targets) {})
}
