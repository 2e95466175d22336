package updatetest

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"bailey/update/release"

	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Key is a key whose secret half is known here.
type Key struct {
	ID      string
	Public  *metadata.Key
	private ed25519.PrivateKey
}

// NewKey makes the key with a name; the same name is the same key.
func NewKey(name string) Key {
	seed := sha256.Sum256([]byte("updatetest " + name))
	private := ed25519.NewKeyFromSeed(seed[:])
	public, err := metadata.KeyFromPublicKey(private.Public())
	if err != nil {
		panic(err)
	}
	id, err := public.ID()
	if err != nil {
		panic(err)
	}
	return Key{ID: id, Public: public, private: private}
}

// Sign returns the key's signature.
func (k Key) Sign(payload []byte) metadata.Signature {
	return metadata.Signature{KeyID: k.ID, Signature: ed25519.Sign(k.private, payload)}
}

// Targets is what a role signs that has targets.
type Targets = metadata.Metadata[metadata.TargetsType]

// Repository is a repository in memory. Change its parts, then Commit. It is not safe for concurrent use; Files may be changed between requests.
type Repository struct {
	Now       time.Time
	Keys      map[string][]Key // who signs a role; targets and vendors included
	Root      *metadata.Metadata[metadata.RootType]
	Timestamp *metadata.Metadata[metadata.TimestampType]
	Snapshot  *metadata.Metadata[metadata.SnapshotType]
	Roles     map[string]*Targets // targets, and the roles that it delegates to
	Bare      bool                // the snapshot names versions only, as other repositories do
	Files     map[string][]byte   // what is served, by path
}

// Acme and Globex are the streams of two vendors that do not trust each other.
func Acme() release.Stream {
	return release.Stream{Vendor: "acme", Product: "edr", Kind: release.Content}
}

// Globex is the other one.
func Globex() release.Stream {
	return release.Stream{Vendor: "globex", Product: "av", Kind: release.Content}
}

// New makes a sound repository with one release of Acme and one of Globex. Root needs two of three keys, every other role one.
func New(now time.Time) *Repository {
	r := &Repository{Now: now.UTC().Truncate(time.Second), Keys: map[string][]Key{}, Roles: map[string]*Targets{}, Files: map[string][]byte{}}
	r.Root = metadata.Root(r.in(365 * 24 * time.Hour))
	r.Snapshot = metadata.Snapshot(r.in(30 * 24 * time.Hour))
	r.Timestamp = metadata.Timestamp(r.in(24 * time.Hour))
	r.Root.Signed.Version, r.Snapshot.Signed.Version, r.Timestamp.Signed.Version = 0, 0, 0
	r.Assign(metadata.ROOT, 2, NewKey("root-a"), NewKey("root-b"), NewKey("root-c"))
	for _, role := range []string{metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		r.Assign(role, 1, NewKey(role))
	}
	r.Roles[metadata.TARGETS] = metadata.Targets(r.in(90 * 24 * time.Hour))
	r.Roles[metadata.TARGETS].Signed.Version = 0
	for _, s := range []release.Stream{Acme(), Globex()} {
		r.Delegate(s.Role(), s.Pattern(), 1, NewKey(s.Vendor))
		r.Release(s, "1.0", []byte(s.Vendor+" one"))
	}
	r.CommitRoot()
	r.Commit()
	return r
}

func (r *Repository) in(d time.Duration) time.Time { return r.Now.Add(d) }

// Assign gives one of the four top-level roles to keys. CommitRoot publishes it.
func (r *Repository) Assign(role string, threshold int, keys ...Key) {
	r.Keys[role] = keys
	h := &metadata.Role{Threshold: threshold, KeyIDs: []string{}}
	for _, k := range keys {
		h.KeyIDs = append(h.KeyIDs, k.ID)
		r.Root.Signed.Keys[k.ID] = k.Public
	}
	r.Root.Signed.Roles[role] = h
}

// Delegate gives a pattern of paths to a role with keys.
func (r *Repository) Delegate(role, pattern string, threshold int, keys ...Key) {
	t := r.Roles[metadata.TARGETS]
	if t.Signed.Delegations == nil {
		t.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}, Roles: []metadata.DelegatedRole{}}
	}
	d := metadata.DelegatedRole{Name: role, Threshold: threshold, Terminating: true, Paths: []string{pattern}, KeyIDs: []string{}}
	for _, k := range keys {
		d.KeyIDs = append(d.KeyIDs, k.ID)
		t.Signed.Delegations.Keys[k.ID] = k.Public
	}
	others := slices.DeleteFunc(t.Signed.Delegations.Roles, func(o metadata.DelegatedRole) bool { return o.Name == role })
	t.Signed.Delegations.Roles = append(others, d)
	r.Keys[role] = keys
	if r.Roles[role] == nil {
		r.Roles[role] = metadata.Targets(r.in(60 * 24 * time.Hour))
		r.Roles[role].Signed.Version = 0
	}
}

// Describe returns what a release says about itself.
func Describe(s release.Stream, version string) release.Description {
	v, err := release.ParseVersion(version)
	if err != nil {
		panic(err)
	}
	return release.Description{Schema: 1, Vendor: s.Vendor, Product: s.Product, Kind: s.Kind, Version: v, Platforms: []string{"linux/amd64"}, Urgency: release.Routine}
}

// Release adds a target to a stream's role, and its file. It returns the target's path.
func (r *Repository) Release(s release.Stream, version string, data []byte) string {
	d := Describe(s, version)
	custom, err := d.JSON()
	if err != nil {
		panic(err)
	}
	p := s.Path(d.Version, "")
	r.Target(s.Role(), p, data, custom)
	return p
}

// Target adds any target to any role, and its file.
func (r *Repository) Target(role, p string, data, custom []byte) {
	sum := sha256.Sum256(data)
	t := &metadata.TargetFiles{Length: int64(len(data)), Hashes: metadata.Hashes{"sha256": sum[:]}, Path: p}
	if custom != nil {
		raw := json.RawMessage(custom)
		t.Custom = &raw
	}
	r.Roles[role].Signed.Targets[p] = t
	r.Files[TargetFile(p, data)] = data
}

// TargetFile is where the file of a target is served.
func TargetFile(p string, data []byte) string {
	sum := sha256.Sum256(data)
	return "targets/" + path.Dir(p) + "/" + hex.EncodeToString(sum[:]) + "." + path.Base(p)
}

// CommitRoot signs the next root with its own keys and those that sign it besides.
func (r *Repository) CommitRoot(besides ...Key) {
	r.Root.Signed.Version++
	r.Files[fmt.Sprintf("metadata/%d.root.json", r.Root.Signed.Version)] = Signed(r.Root, append(slices.Clone(r.Keys[metadata.ROOT]), besides...)...)
}

// RootFile returns a root as it is served.
func (r *Repository) RootFile(version int64) []byte {
	return r.Files[fmt.Sprintf("metadata/%d.root.json", version)]
}

// Commit signs the next version of everything below the root.
func (r *Repository) Commit() {
	for _, role := range slices.Sorted(maps.Keys(r.Roles)) {
		r.CommitRole(role)
	}
	r.CommitSnapshot()
	r.CommitTimestamp()
}

// CommitRole signs the next version of one role.
func (r *Repository) CommitRole(role string) {
	r.Roles[role].Signed.Version++
	r.Put(role, r.Roles[role].Signed.Version, Signed(r.Roles[role], r.Keys[role]...))
}

// Put serves text as a role's file and names it in the next snapshot.
func (r *Repository) Put(role string, version int64, text []byte) {
	r.Files[fmt.Sprintf("metadata/%d.%s.json", version, role)] = text
	r.Snapshot.Signed.Meta[role+".json"] = r.names(version, text)
}

// names returns what names a file.
func (r *Repository) names(version int64, text []byte) *metadata.MetaFiles {
	if r.Bare {
		return &metadata.MetaFiles{Version: version}
	}
	sum := sha256.Sum256(text)
	return &metadata.MetaFiles{Version: version, Length: int64(len(text)), Hashes: metadata.Hashes{"sha256": sum[:]}}
}

// CommitSnapshot signs the next snapshot.
func (r *Repository) CommitSnapshot() {
	r.Snapshot.Signed.Version++
	text := Signed(r.Snapshot, r.Keys[metadata.SNAPSHOT]...)
	r.Files[fmt.Sprintf("metadata/%d.snapshot.json", r.Snapshot.Signed.Version)] = text
	r.Timestamp.Signed.Meta["snapshot.json"] = r.names(r.Snapshot.Signed.Version, text)
}

// CommitTimestamp signs the next timestamp.
func (r *Repository) CommitTimestamp() {
	r.Timestamp.Signed.Version++
	r.Timestamp.Signed.UnrecognizedFields = map[string]any{"issued": r.Now.Format(time.RFC3339)}
	r.Files["metadata/timestamp.json"] = Signed(r.Timestamp, r.Keys[metadata.TIMESTAMP]...)
}

// Later lets time pass and signs what expires soonest anew.
func (r *Repository) Later(d time.Duration) {
	r.Now = r.Now.Add(d)
	r.Snapshot.Signed.Expires, r.Timestamp.Signed.Expires = r.in(30*24*time.Hour), r.in(24*time.Hour)
}

// Keep copies what is served.
func (r *Repository) Keep() map[string][]byte { return maps.Clone(r.Files) }

// Signed returns metadata as a file, signed with keys.
func Signed[T metadata.Roles](m *metadata.Metadata[T], keys ...Key) []byte {
	m.ClearSignatures()
	payload, err := cjson.EncodeCanonical(m.Signed)
	if err != nil {
		panic(err)
	}
	for _, k := range keys {
		m.Signatures = append(m.Signatures, k.Sign(payload))
	}
	text, err := m.ToBytes(false)
	if err != nil {
		panic(err)
	}
	return text
}

// Rewritten returns the file of a role with one piece of its text replaced, signed again as its keeper could have signed it. The piece must
// be there.
func Rewritten(text []byte, from, to string, keys ...Key) []byte {
	if !strings.Contains(string(text), from) {
		panic(fmt.Sprintf("%q is not in %s", from, text))
	}
	text = []byte(strings.Replace(string(text), from, to, 1))
	return Resigned(text, keys...)
}

// Resigned returns a file with the signatures of keys in place of those that it has. What nobody could read it leaves as it is, because nobody would
// look at a signature.
func Resigned(text []byte, keys ...Key) []byte {
	payload, err := payloadOf(text)
	if err != nil {
		return text
	}
	var e map[string]json.RawMessage
	if err := json.Unmarshal(text, &e); err != nil {
		return text
	}
	signatures := []metadata.Signature{}
	for _, k := range keys {
		signatures = append(signatures, k.Sign(payload))
	}
	if e["signatures"], err = json.Marshal(signatures); err != nil {
		return text
	}
	again, err := json.Marshal(e)
	if err != nil {
		return text
	}
	return again
}

// payloadOf returns what go-tuf would check a signature against. It can fall over, as go-tuf does.
func payloadOf(text []byte) (payload []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	var e struct {
		Signed struct {
			Type string `json:"_type"`
		} `json:"signed"`
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, err
	}
	switch e.Signed.Type {
	case metadata.TIMESTAMP:
		return canonical[metadata.TimestampType](text)
	case metadata.SNAPSHOT:
		return canonical[metadata.SnapshotType](text)
	}
	return canonical[metadata.TargetsType](text)
}

func canonical[T metadata.Roles](text []byte) ([]byte, error) {
	m, err := new(metadata.Metadata[T]).FromBytes(text)
	if err != nil {
		return nil, err
	}
	return cjson.EncodeCanonical(m.Signed)
}
