package publish

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"bailey/update/release"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Holders are a role's keys, and how many of them must sign.
type Holders struct {
	Keys      []Public
	Threshold int
}

func (h Holders) check(role string) error {
	seen := map[KeyID]bool{}
	for _, k := range h.Keys {
		if k.key == nil || seen[k.ID] {
			return fmt.Errorf("a key of %s is twice or empty", role)
		}
		seen[k.ID] = true
	}
	if h.Threshold < 1 || h.Threshold > len(h.Keys) {
		return fmt.Errorf("%s cannot be signed by %d of %d keys", role, h.Threshold, len(h.Keys))
	}
	return nil
}

func (h Holders) ids() []string {
	out := []string{}
	for _, k := range h.Keys {
		out = append(out, string(k.ID))
	}
	return out
}

// Setup says who signs what. Root, targets and policy keys belong offline; snapshot and timestamp keys sign many times a day.
type Setup struct {
	Root, Targets, Snapshot, Timestamp, Policy Holders
}

// Init makes an empty repository and returns its first root, which is what agents come with.
func Init(ctx context.Context, cfg Config, s Setup, signers []Signer) ([]byte, error) {
	cfg = cfg.orDefault()
	for role, h := range map[string]Holders{"root": s.Root, "targets": s.Targets, "snapshot": s.Snapshot, "timestamp": s.Timestamp, "policy": s.Policy} {
		if err := h.check(role); err != nil {
			return nil, fmt.Errorf("make a repository: %w", err)
		}
	}
	for _, dir := range []string{"metadata", "targets"} {
		if err := os.MkdirAll(cfg.Dir+"/"+dir, 0o755); err != nil {
			return nil, fmt.Errorf("make a repository: %w", err)
		}
	}
	unlock, err := lock(cfg.Dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if entries, err := os.ReadDir(cfg.metadata("")); err != nil || len(entries) != 0 {
		return nil, fmt.Errorf("make a repository in %s: %w", cfg.Dir, errors.Join(ErrExists, err))
	}
	ring, err := newRing(signers)
	if err != nil {
		return nil, err
	}
	root := metadata.Root(cfg.in(cfg.Life.Root))
	for role, h := range map[string]Holders{metadata.ROOT: s.Root, metadata.TARGETS: s.Targets, metadata.SNAPSHOT: s.Snapshot, metadata.TIMESTAMP: s.Timestamp} {
		assign(&root.Signed, role, h)
	}
	r := &Repository{cfg: cfg, root: root}
	text, err := sign(ctx, ring, "root", root, r.top(metadata.ROOT))
	if err != nil {
		return nil, err
	}
	index := metadata.Targets(cfg.in(cfg.Life.Targets))
	delegate(index, release.PolicyRole, release.PolicyPath, s.Policy)
	files := draft{root: text}
	if files.targets, err = sign(ctx, ring, "targets", index, r.top(metadata.TARGETS)); err != nil {
		return nil, err
	}
	snapshot := metadata.Snapshot(cfg.in(cfg.Life.Snapshot))
	snapshot.Signed.Version = 0
	if err := r.announce(ctx, ring, &files, index, snapshot, metadata.Timestamp(), true); err != nil {
		return nil, err
	}
	return text, files.write(cfg)
}

// assign gives a top-level role to its holders.
func assign(root *metadata.RootType, role string, h Holders) {
	root.Roles[role] = &metadata.Role{KeyIDs: h.ids(), Threshold: h.Threshold}
	for _, k := range h.Keys {
		root.Keys[string(k.ID)] = k.key
	}
	var used []string
	for _, r := range root.Roles {
		used = append(used, r.KeyIDs...)
	}
	keepOnly(root.Keys, used)
}

// delegate gives a delegated role to its holders, in place of those it had.
func delegate(index *targets, role, pattern string, h Holders) {
	d := index.Signed.Delegations
	if d == nil {
		d = &metadata.Delegations{Keys: map[string]*metadata.Key{}, Roles: []metadata.DelegatedRole{}}
		index.Signed.Delegations = d
	}
	one := metadata.DelegatedRole{Name: role, KeyIDs: h.ids(), Threshold: h.Threshold, Terminating: true, Paths: []string{pattern}}
	replaced := false
	for i := range d.Roles {
		if d.Roles[i].Name == role {
			d.Roles[i], replaced = one, true
		}
	}
	if !replaced {
		d.Roles = append(d.Roles, one)
	}
	for _, k := range h.Keys {
		d.Keys[string(k.ID)] = k.key
	}
	var used []string
	for _, r := range d.Roles {
		used = append(used, r.KeyIDs...)
	}
	keepOnly(d.Keys, used)
}

// keepOnly takes away the keys that no role uses: they are revoked.
func keepOnly(keys map[string]*metadata.Key, used []string) {
	maps.DeleteFunc(keys, func(id string, _ *metadata.Key) bool { return !slices.Contains(used, id) })
}
