package publish

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"bailey/update/trust"

	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Rotation gives top-level roles to other keys. A role that is not in it keeps its own.
type Rotation map[string]Holders

// Rotate signs the next root, with the keys of the present one and with its own, and under it whatever its roles sign. Keys that are in no
// role afterwards are revoked. After a theft of the timestamp's or the snapshot's key rotate both: what the thief signed, also versions and
// times far ahead, then counts nowhere.
func (r *Repository) Rotate(ctx context.Context, change Rotation, signers []Signer) error {
	ring, err := newRing(signers)
	if err != nil {
		return err
	}
	next, err := r.nextRoot(change)
	if err != nil {
		return err
	}
	text, err := sign(ctx, ring, "root", next, r.top(metadata.ROOT), topOf(next, metadata.ROOT))
	if err != nil {
		return err
	}
	_, renew := change[metadata.TARGETS]
	return r.adopt(ctx, next, text, signers, renew)
}

func topOf(root *metadata.Metadata[metadata.RootType], role string) holders {
	h := root.Signed.Roles[role]
	return holders{ids: h.KeyIDs, threshold: h.Threshold}
}

func (r *Repository) nextRoot(change Rotation) (*metadata.Metadata[metadata.RootType], error) {
	next, err := clone(r.root)
	if err != nil {
		return nil, err
	}
	for role, h := range change {
		if next.Signed.Roles[role] == nil {
			return nil, fmt.Errorf("rotate %s: %w", role, ErrNoRole)
		}
		if err := h.check(role); err != nil {
			return nil, fmt.Errorf("rotate: %w", err)
		}
		assign(&next.Signed, role, h)
	}
	next.Signed.Version++
	next.Signed.Expires = r.cfg.in(r.cfg.Life.Root)
	next.ClearSignatures()
	return next, nil
}

// adopt makes a root that enough have signed the present one, and signs anew what its roles sign: the targets if their keys changed, or to renew them.
func (r *Repository) adopt(ctx context.Context, next *metadata.Metadata[metadata.RootType], text []byte, signers []Signer, renew bool) error {
	ring, err := newRing(signers)
	if err != nil {
		return err
	}
	was := r.root
	d := draft{root: text, rootVersion: next.Signed.Version}
	index, err := clone(r.index())
	if err != nil {
		return err
	}
	renew = renew || !slices.Equal(was.Signed.Roles[metadata.TARGETS].KeyIDs, next.Signed.Roles[metadata.TARGETS].KeyIDs) ||
		was.Signed.Roles[metadata.TARGETS].Threshold != next.Signed.Roles[metadata.TARGETS].Threshold
	r.root = next
	if renew {
		if d.targets, err = r.signIndex(ctx, ring, index); err != nil {
			r.root = was
			return err
		}
		d.targetsVersion = index.Signed.Version
	}
	return r.publish(ctx, signers, &d, index, true)
}

// Root returns the newest root's file: what the next agents are built with.
func (r *Repository) Root() ([]byte, error) {
	return os.ReadFile(r.cfg.metadata(numbered(r.root.Signed.Version, metadata.ROOT)))
}

// DraftRoot returns the next root without signatures, for holders of root keys who are in different places: each signs the draft with SignDraft, and
// when enough have, AdoptRoot takes it.
func (r *Repository) DraftRoot(change Rotation) ([]byte, error) {
	next, err := r.nextRoot(change)
	if err != nil {
		return nil, err
	}
	return next.ToBytes(true)
}

// DraftRole is what a draft says about one role.
type DraftRole struct {
	Role      string  `json:"role"`
	Threshold int     `json:"threshold"`
	Keys      []KeyID `json:"keys"`
}

// Draft is what a draft says, for whoever is asked to sign it.
type Draft struct {
	Version int64       `json:"version"`
	Expires string      `json:"expires"`
	Roles   []DraftRole `json:"roles"`
	Signed  []KeyID     `json:"signed"` // whose signatures it has; whether they are good is looked at when it is adopted
}

// ReadDraft returns what a draft says.
func ReadDraft(text []byte) (Draft, error) {
	m, err := parseDraft(text)
	if err != nil {
		return Draft{}, err
	}
	d := Draft{Version: m.Signed.Version, Expires: m.Signed.Expires.UTC().Format("2006-01-02"), Signed: []KeyID{}}
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		one := DraftRole{Role: role, Threshold: m.Signed.Roles[role].Threshold}
		for _, id := range m.Signed.Roles[role].KeyIDs {
			one.Keys = append(one.Keys, KeyID(id))
		}
		d.Roles = append(d.Roles, one)
	}
	for _, s := range m.Signatures {
		d.Signed = append(d.Signed, KeyID(s.KeyID))
	}
	return d, nil
}

func parseDraft(text []byte) (*metadata.Metadata[metadata.RootType], error) {
	if err := trust.Check(metadata.ROOT, text); err != nil {
		return nil, fmt.Errorf("read a draft of a root: %w", err)
	}
	m, err := metadata.Root().FromBytes(text)
	if err != nil {
		return nil, fmt.Errorf("read a draft of a root: %w", err)
	}
	return m, nil
}

// SignDraft adds the signatures of all keys at hand, and returns the draft with them. Whose keys they are is looked at when the draft is adopted.
func SignDraft(ctx context.Context, text []byte, signers []Signer) ([]byte, error) {
	m, err := parseDraft(text)
	if err != nil {
		return nil, err
	}
	payload, err := cjson.EncodeCanonical(m.Signed)
	if err != nil {
		return nil, fmt.Errorf("sign a draft: %w", err)
	}
	for _, s := range signers {
		p, err := PublicOf(s.Public())
		if err != nil {
			return nil, err
		}
		sig, err := s.Sign(ctx, payload)
		if err != nil {
			return nil, fmt.Errorf("sign a draft: %w", err)
		}
		m.Signatures = slices.DeleteFunc(m.Signatures, func(o metadata.Signature) bool { return o.KeyID == string(p.ID) })
		m.Signatures = append(m.Signatures, metadata.Signature{KeyID: string(p.ID), Signature: sig})
	}
	return m.ToBytes(true)
}

// AdoptRoot takes a draft that enough holders of the present root and of its own have signed. The signers here are those of what the root's roles sign.
func (r *Repository) AdoptRoot(ctx context.Context, text []byte, signers []Signer) error {
	next, err := parseDraft(text)
	if err != nil {
		return err
	}
	if v := r.root.Signed.Version + 1; next.Signed.Version != v {
		return fmt.Errorf("adopt a root: it is version %d, and the next is %d", next.Signed.Version, v)
	}
	for whose, by := range map[string]*metadata.Metadata[metadata.RootType]{"the present root's": r.root, "its own": next} {
		if err := by.VerifyDelegate(metadata.ROOT, next); err != nil {
			if errors.Is(err, &metadata.ErrUnsignedMetadata{}) {
				err = ErrSigners
			}
			return fmt.Errorf("adopt a root: %w: %d of %s keys sign (they are %s)", err, topOf(by, metadata.ROOT).threshold, whose, shortIDs(topOf(by, metadata.ROOT).ids))
		}
	}
	next.Signatures = slices.DeleteFunc(next.Signatures, func(s metadata.Signature) bool {
		return !slices.Contains(r.top(metadata.ROOT).ids, s.KeyID) && !slices.Contains(topOf(next, metadata.ROOT).ids, s.KeyID)
	})
	if text, err = next.ToBytes(false); err != nil {
		return fmt.Errorf("adopt a root: %w", err)
	}
	return r.adopt(ctx, next, text, signers, false)
}
