package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// ErrSigners says that not enough of a role's keys are at hand.
var ErrSigners = errors.New("not enough keys")

// holders are the keys of a role and how many of them sign.
type holders struct {
	ids       []string
	threshold int
}

// ring finds signers by the names of their keys.
type ring map[string]Signer

func newRing(signers []Signer) (ring, error) {
	r := ring{}
	for _, s := range signers {
		p, err := PublicOf(s.Public())
		if err != nil {
			return nil, err
		}
		r[string(p.ID)] = s
	}
	return r, nil
}

// has reports whether enough keys of a role are at hand.
func (r ring) has(h holders) bool {
	n := 0
	for _, id := range h.ids {
		if r[id] != nil {
			n++
		}
	}
	return n >= h.threshold
}

// sign signs for a role, or for several that must all agree, with the keys that are at hand, in order of their names. Once enough have signed
// for each, the others are not asked: a passphrase that is not needed stays where it is.
func sign[T metadata.Roles](ctx context.Context, r ring, role string, m *metadata.Metadata[T], all ...holders) ([]byte, error) {
	m.ClearSignatures()
	payload, err := cjson.EncodeCanonical(m.Signed)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", role, err)
	}
	signed := map[string]bool{}
	for _, h := range all {
		n := 0
		for _, id := range slices.Sorted(slices.Values(h.ids)) {
			if n == h.threshold {
				break
			}
			if r[id] == nil {
				continue
			}
			if !signed[id] {
				sig, err := r[id].Sign(ctx, payload)
				if err != nil {
					return nil, fmt.Errorf("sign %s: %w", role, err)
				}
				m.Signatures = append(m.Signatures, metadata.Signature{KeyID: id, Signature: sig})
				signed[id] = true
			}
			n++
		}
		if n < h.threshold {
			return nil, fmt.Errorf("sign %s: %w: %d of its %d keys sign, and %d are at hand (they are %s)", role, ErrSigners, h.threshold, len(h.ids), n, shortIDs(h.ids))
		}
	}
	return m.ToBytes(false)
}

func shortIDs(ids []string) string {
	var out []string
	for _, id := range ids {
		out = append(out, KeyID(id).Short())
	}
	return strings.Join(out, ", ")
}
