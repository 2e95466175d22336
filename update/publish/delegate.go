package publish

import (
	"context"
	"encoding/json"
	"fmt"

	"bailey/update/release"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// AddVendor gives a stream to its holders. With other holders than before it takes the stream away from those: what they signed counts no more,
// until the new ones have signed.
func (r *Repository) AddVendor(ctx context.Context, s release.Stream, h Holders, signers []Signer) error {
	if err := s.Check(); err != nil {
		return fmt.Errorf("add a vendor: %w", err)
	}
	if err := h.check(s.Role()); err != nil {
		return fmt.Errorf("add a vendor: %w", err)
	}
	return r.redelegate(ctx, s.Role(), s.Pattern(), h, signers)
}

// SetPolicyHolders gives the recovery policy to other keys.
func (r *Repository) SetPolicyHolders(ctx context.Context, h Holders, signers []Signer) error {
	if err := h.check(release.PolicyRole); err != nil {
		return err
	}
	return r.redelegate(ctx, release.PolicyRole, release.PolicyPath, h, signers)
}

func (r *Repository) redelegate(ctx context.Context, role, pattern string, h Holders, signers []Signer) error {
	return r.reindex(ctx, signers, func(index *targets) { delegate(index, role, pattern, h) })
}

// reindex changes the top-level targets and shows them.
func (r *Repository) reindex(ctx context.Context, signers []Signer, how func(index *targets)) error {
	ring, err := newRing(signers)
	if err != nil {
		return err
	}
	index, err := clone(r.index())
	if err != nil {
		return err
	}
	how(index)
	d := draft{}
	if d.targets, err = r.signIndex(ctx, ring, index); err != nil {
		return err
	}
	d.targetsVersion = index.Signed.Version
	return r.publish(ctx, signers, &d, index, false)
}

// signIndex signs the next version of the top-level targets.
func (r *Repository) signIndex(ctx context.Context, ring ring, index *targets) ([]byte, error) {
	index.Signed.Version++
	index.Signed.Expires = r.cfg.in(r.cfg.Life.Targets)
	return sign(ctx, ring, "targets", index, r.top(metadata.TARGETS))
}

// clone copies metadata, so that a change that fails has changed nothing.
func clone[T metadata.Roles](m *metadata.Metadata[T]) (*metadata.Metadata[T], error) {
	text, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("copy metadata: %w", err)
	}
	out := new(metadata.Metadata[T])
	if err := json.Unmarshal(text, out); err != nil {
		return nil, fmt.Errorf("copy metadata: %w", err)
	}
	return out, nil
}
