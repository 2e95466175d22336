package trust

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"

	"bailey/internal/strictjson"
	"bailey/update/release"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Rules says what is asked of a repository beyond the specification of The Update Framework.
type Rules int

const (
	// HouseRules is everything: one role per stream with paths that its name fixes, no delegation by vendors, length and digest of
	// every file of metadata, at most MaxLive targets a role.
	HouseRules Rules = iota
	// SpecificationOnly is for conformance suites, whose repositories know nothing of streams. What could crash a client is refused here
	// too. No agent uses it.
	SpecificationOnly
)

// MaxLive is how many targets a role can have.
const MaxLive = 50

const (
	maxRole   = 64 << 10  // bytes of a root, a timestamp or a vendor's role
	maxIndex  = 512 << 10 // bytes of what lists all roles: the snapshot and the top-level targets
	maxSigns  = 64        // signatures and keys of one file or role
	maxKey    = 1 << 10   // bytes of a key; RSA of 4096 bits has 800
	maxTarget = 1 << 30   // bytes of a bundle
)

// sizeOf returns how many bytes a role's file may have.
func sizeOf(role string) int64 {
	if role == metadata.SNAPSHOT || role == metadata.TARGETS {
		return maxIndex
	}
	return maxRole
}

// envelope is what the guard reads of a file of metadata before go-tuf does.
type envelope struct {
	Signatures []struct {
		KeyID string `json:"keyid"`
	} `json:"signatures"`
	Signed body `json:"signed"`
}

type body struct {
	Type        string              `json:"_type"`
	Version     int64               `json:"version"`
	Expires     string              `json:"expires"`
	Consistent  bool                `json:"consistent_snapshot"`
	Keys        map[string]key      `json:"keys"`
	Roles       map[string]holders  `json:"roles"`
	Meta        map[string]metafile `json:"meta"`
	Targets     map[string]target   `json:"targets"`
	Delegations *delegations        `json:"delegations"`
}

type key struct {
	Type  string `json:"keytype"`
	Value struct {
		Public string `json:"public"`
	} `json:"keyval"`
}

type holders struct {
	KeyIDs    []string `json:"keyids"`
	Threshold int      `json:"threshold"`
}

type metafile struct {
	Version int64             `json:"version"`
	Length  int64             `json:"length"`
	Hashes  map[string]string `json:"hashes"`
}

type target struct {
	Length int64             `json:"length"`
	Hashes map[string]string `json:"hashes"`
	Custom json.RawMessage   `json:"custom"`
}

type delegations struct {
	Keys     map[string]key  `json:"keys"`
	Roles    []delegated     `json:"roles"`
	Succinct json.RawMessage `json:"succinct_roles"`
}

type delegated struct {
	holders
	Name         string   `json:"name"`
	Terminating  bool     `json:"terminating"`
	Paths        []string `json:"paths"`
	HashPrefixes []string `json:"path_hash_prefixes"`
}

var hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// guard reports why go-tuf must not see text as the file of a role, or returns what it says about itself. Nothing of it is verified yet.
func guard(role string, text []byte, rules Rules) (*body, error) {
	what := role + ".json"
	if err := strictjson.Check(text, strictjson.Limits{Bytes: int(sizeOf(role)), Depth: 12}); err != nil {
		class := ErrMalformed
		if errors.Is(err, strictjson.ErrSize) {
			class = ErrSize
		}
		return nil, refuse(what, class, "%v", err)
	}
	var e envelope
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, refuse(what, ErrMalformed, "%v", err)
	}
	g := guarding{what: what, rules: rules}
	if err := g.envelope(role, &e); err != nil {
		return nil, err
	}
	return &e.Signed, nil
}

// guarding is one pass of the guard.
type guarding struct {
	what  string
	rules Rules
}

func (g guarding) malformed(format string, args ...any) error {
	return refuse(g.what, ErrMalformed, format, args...)
}

func (g guarding) envelope(role string, e *envelope) error {
	want := role
	if role != metadata.ROOT && role != metadata.TIMESTAMP && role != metadata.SNAPSHOT {
		want = metadata.TARGETS
	}
	b := &e.Signed
	switch {
	case b.Type != want:
		return g.malformed("it is of type %.20q", b.Type)
	case b.Version < 1:
		return g.malformed("its version is %d", b.Version)
	case len(e.Signatures) > maxSigns:
		return g.malformed("it has %d signatures", len(e.Signatures))
	}
	signed := map[string]bool{}
	for _, one := range e.Signatures {
		if signed[one.KeyID] {
			return g.malformed("a key signs twice")
		}
		signed[one.KeyID] = true
	}
	switch role {
	case metadata.ROOT:
		return g.root(b)
	case metadata.TIMESTAMP, metadata.SNAPSHOT:
		return g.index(role, b)
	}
	return g.targets(role, b)
}

func (g guarding) root(b *body) error {
	if err := g.keys(b.Keys); err != nil {
		return err
	}
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		h, found := b.Roles[role]
		if !found {
			return g.malformed("it names nobody for %s", role)
		}
		if err := g.holders(role, h, b.Keys); err != nil {
			return err
		}
	}
	if g.rules == HouseRules && (!b.Consistent || len(b.Roles) != len(metadata.TOP_LEVEL_ROLE_NAMES)) {
		return g.malformed("it has no consistent snapshots, or names roles that are not known")
	}
	return nil
}

// keys refuses keys that go-tuf falls over (go-tuf#739), or that would cost more than they prove.
func (g guarding) keys(keys map[string]key) error {
	if len(keys) > maxSigns*8 {
		return g.malformed("it has %d keys", len(keys))
	}
	for id, k := range keys {
		switch {
		case len(id) > 128 || len(k.Value.Public) > maxKey:
			return g.malformed("a key of %d bytes", len(k.Value.Public))
		case k.Type == metadata.KeyTypeEd25519 && !hexDigest.MatchString(k.Value.Public):
			return g.malformed("an ed25519 key that is not 32 bytes in hexadecimal")
		}
	}
	return nil
}

func (g guarding) holders(role string, h holders, keys map[string]key) error {
	if h.Threshold < 1 || len(h.KeyIDs) > maxSigns || g.rules == HouseRules && h.Threshold > len(h.KeyIDs) {
		return g.malformed("%.80s is signed by %d of %d", role, h.Threshold, len(h.KeyIDs))
	}
	seen := map[string]bool{}
	for _, id := range h.KeyIDs {
		if _, found := keys[id]; seen[id] || !found && g.rules == HouseRules {
			return g.malformed("a key of %.80s is twice or nowhere", role)
		}
		seen[id] = true
	}
	return nil
}

// index looks at what names other files: the timestamp names the snapshot, the snapshot names the targets and all roles.
func (g guarding) index(role string, b *body) error {
	first := metadata.SNAPSHOT + ".json"
	if role == metadata.SNAPSHOT {
		first = metadata.TARGETS + ".json"
	} else if len(b.Meta) != 1 {
		return g.malformed("it names %d files", len(b.Meta))
	}
	if _, found := b.Meta[first]; !found {
		return g.malformed("it does not name %s", first)
	}
	for name, m := range b.Meta {
		if m.Version < 1 || m.Length < 0 {
			return g.malformed("version %d and length %d of %.80q", m.Version, m.Length, name)
		}
		if g.rules == SpecificationOnly {
			continue
		}
		of, isJSON := strings.CutSuffix(name, ".json")
		if !isJSON || role == metadata.SNAPSHOT && of != metadata.TARGETS && !roleName(of) {
			return g.malformed("it names %.80q", name)
		}
		if m.Length < 1 || !hexDigest.MatchString(m.Hashes["sha256"]) || len(m.Hashes) != 1 {
			return g.malformed("it says not length and sha256 of %.80q: another role's file could take its place", name)
		}
	}
	return nil
}

// roleName reports whether a role can be delegated to under the house rules.
func roleName(role string) bool {
	_, err := release.ParseRole(role)
	return err == nil || role == release.PolicyRole
}

func (g guarding) targets(role string, b *body) error {
	if g.rules == SpecificationOnly {
		return g.anyTargets(b)
	}
	if role == metadata.TARGETS {
		if len(b.Targets) != 0 {
			return refuse(g.what, ErrDelegation, "it has targets itself, and only the roles of vendors have")
		}
		return g.delegations(b.Delegations)
	}
	if b.Delegations != nil {
		return refuse(g.what, ErrDelegation, "it delegates, and no vendor's role does")
	}
	if len(b.Targets) > MaxLive {
		return refuse(g.what, ErrSize, "%d targets, at most %d", len(b.Targets), MaxLive)
	}
	for path, t := range b.Targets {
		if err := belongs(role, path); err != nil {
			return refuse(g.what, ErrDelegation, "%v", err)
		}
		if t.Length < 1 || t.Length > maxTarget || !hexDigest.MatchString(t.Hashes["sha256"]) || len(t.Hashes) != 1 {
			return g.malformed("length or sha256 of %.200q", path)
		}
	}
	return nil
}

// anyTargets looks at targets and delegations of any shape.
func (g guarding) anyTargets(b *body) error {
	for path, t := range b.Targets {
		if t.Length < 0 || len(t.Hashes) == 0 {
			return g.malformed("length or digest of %.200q", path)
		}
	}
	if b.Delegations == nil {
		return nil
	}
	if err := g.keys(b.Delegations.Keys); err != nil {
		return err
	}
	if len(b.Delegations.Succinct) != 0 {
		return g.succinct(b.Delegations.Succinct)
	}
	for _, d := range b.Delegations.Roles {
		if len(d.KeyIDs) > maxSigns {
			return g.malformed("%.80q has %d keys", d.Name, len(d.KeyIDs))
		}
	}
	return nil
}

func (g guarding) succinct(text json.RawMessage) error {
	var s struct {
		Bits int `json:"bit_length"`
	}
	if err := json.Unmarshal(text, &s); err != nil || s.Bits < 1 || s.Bits > 32 {
		return g.malformed("succinct roles of %d bits", s.Bits)
	}
	return nil
}

// delegations wants one role per stream, with the one pattern that its name gives. Whoever holds the key of the top-level targets says who
// a vendor is, and still cannot hand one vendor's paths to another.
func (g guarding) delegations(d *delegations) error {
	if d == nil {
		return nil
	}
	if len(d.Succinct) != 0 {
		return refuse(g.what, ErrDelegation, "it has succinct roles")
	}
	if err := g.keys(d.Keys); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, r := range d.Roles {
		pattern := release.PolicyPath
		if r.Name != release.PolicyRole {
			s, err := release.ParseRole(r.Name)
			if err != nil {
				return refuse(g.what, ErrDelegation, "%v", err)
			}
			pattern = s.Pattern()
		}
		if seen[r.Name] || !r.Terminating || len(r.HashPrefixes) != 0 || !slices.Equal(r.Paths, []string{pattern}) {
			return refuse(g.what, ErrDelegation, "%s must be delegated to once, terminating, for %s and nothing else", r.Name, pattern)
		}
		seen[r.Name] = true
		if err := g.holders(r.Name, r.holders, d.Keys); err != nil {
			return err
		}
	}
	return nil
}

// belongs reports why a role may not sign a path.
func belongs(role, path string) error {
	if role == release.PolicyRole {
		if path != release.PolicyPath {
			return errors.New("it signs more than the recovery policy")
		}
		return nil
	}
	if bundle, _, err := release.ParseDeltaPath(path); err == nil {
		path = bundle
	}
	s, _, _, err := release.ParsePath(path)
	if err != nil {
		return err
	}
	if s.Role() != role {
		return errors.New("it signs a path of " + s.String())
	}
	return nil
}

// Check reports why a client under the house rules would refuse text as the file of a role before it looks at any signature.
func Check(role string, text []byte) error {
	_, err := guard(role, text, HouseRules)
	return err
}
