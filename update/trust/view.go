package trust

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"bailey/update/release"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// View is what a repository said at one moment, verified. It holds the client's directory until it is closed. It is not safe for
// concurrent use.
type View struct {
	At     time.Time // the time that it was judged by
	look   *look
	unlock func()
}

// Close lets the next look begin.
func (v *View) Close() { v.unlock() }

// Versions counts what the view rests on.
func (v *View) Versions() Versions {
	t := v.look.trusted
	return Versions{Root: t.Root.Signed.Version, Timestamp: t.Timestamp.Signed.Version, Snapshot: t.Snapshot.Signed.Version}
}

// Expires returns when the view stops being news: machines that look again then and find nothing newer know that something is held back.
func (v *View) Expires() time.Time { return v.look.trusted.Timestamp.Signed.Expires }

// RoleExpires returns until when a role's signature lasts: root, targets, policy, or the role of a stream.
func (v *View) RoleExpires(ctx context.Context, role string) (time.Time, error) {
	t := v.look.trusted
	switch role {
	case metadata.ROOT:
		return t.Root.Signed.Expires, nil
	case metadata.TARGETS:
		return t.Targets[role].Signed.Expires, nil
	}
	if err := v.load(ctx, role); err != nil {
		return time.Time{}, err
	}
	return t.Targets[role].Signed.Expires, nil
}

// Target is a file that a role has signed for.
type Target struct {
	Path   string `json:"path"`
	Role   string `json:"role"`
	Length int64  `json:"length"`
	SHA256 string `json:"sha256"`
}

// Offer is a release that a stream's own role has signed.
type Offer struct {
	Target
	Release  release.Description `json:"release"`
	Platform string              `json:"platform,omitempty"` // os-arch if there is a bundle for each
	Deltas   []Delta             `json:"deltas,omitempty"`
}

// Delta is another way to an offer, for a machine that has a certain version.
type Delta struct {
	Target
	Base release.Version `json:"base"`
}

// Unusable is a release that cannot be used by this version of the agent, and why.
type Unusable struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// Streams lists the streams that have a role, in order.
func (v *View) Streams() []release.Stream {
	var out []release.Stream
	if d := v.look.trusted.Targets[metadata.TARGETS].Signed.Delegations; d != nil {
		for _, r := range d.Roles {
			if s, err := release.ParseRole(r.Name); err == nil {
				out = append(out, s)
			}
		}
	}
	slices.SortFunc(out, func(a, b release.Stream) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// Offers returns the releases of a stream, newest first, and those that this version cannot use. What another vendor did wrong does not matter
// here.
func (v *View) Offers(ctx context.Context, s release.Stream) ([]Offer, []Unusable, error) {
	if err := s.Check(); err != nil {
		return nil, nil, err
	}
	if err := v.load(ctx, s.Role()); err != nil {
		return nil, nil, err
	}
	var offers []Offer
	var unusable []Unusable
	deltas := map[string][]Delta{} // by the path of their bundle
	for path, t := range v.look.trusted.Targets[s.Role()].Signed.Targets {
		if bundle, base, err := release.ParseDeltaPath(path); err == nil {
			deltas[bundle] = append(deltas[bundle], Delta{Target: targetOf(s.Role(), path, t), Base: base})
			continue
		}
		o, err := offer(s, path, t)
		if err != nil {
			unusable = append(unusable, Unusable{Path: path, Reason: err.Error()})
			continue
		}
		offers = append(offers, o)
	}
	for i := range offers {
		d := deltas[offers[i].Path]
		slices.SortFunc(d, func(a, b Delta) int { return b.Base.Compare(a.Base) })
		offers[i].Deltas = d
	}
	slices.SortFunc(offers, func(a, b Offer) int {
		if c := b.Release.Version.Compare(a.Release.Version); c != 0 {
			return c
		}
		return strings.Compare(a.Path, b.Path)
	})
	slices.SortFunc(unusable, func(a, b Unusable) int { return strings.Compare(a.Path, b.Path) })
	return offers, unusable, nil
}

// offer reads what a release says about itself. It can only agree with the role and the path.
func offer(s release.Stream, path string, t *metadata.TargetFiles) (Offer, error) {
	stream, version, platform, err := release.ParsePath(path)
	if err != nil {
		return Offer{}, err
	}
	if t.Custom == nil {
		return Offer{}, errors.New("nothing is said about it")
	}
	d, err := release.Parse(*t.Custom)
	if err != nil {
		return Offer{}, err
	}
	if stream != s || d.Stream() != s || d.Version.String() != version.String() {
		return Offer{}, fmt.Errorf("it calls itself %s %s", d.Stream(), d.Version)
	}
	if platform != "" && (len(d.Platforms) != 1 || strings.ReplaceAll(d.Platforms[0], "/", "-") != platform) {
		return Offer{}, fmt.Errorf("its name says %s and it says %v", platform, d.Platforms)
	}
	return Offer{Target: targetOf(s.Role(), path, t), Release: d, Platform: platform}, nil
}

func targetOf(role, path string, t *metadata.TargetFiles) Target {
	return Target{Path: path, Role: role, Length: t.Length, SHA256: hex.EncodeToString(t.Hashes["sha256"])}
}

// load loads a role that the top-level targets delegate to.
func (v *View) load(ctx context.Context, role string) error {
	d := v.look.trusted.Targets[metadata.TARGETS].Signed.Delegations
	if d == nil || !slices.ContainsFunc(d.Roles, func(r metadata.DelegatedRole) bool { return r.Name == role }) {
		return refuse(role, ErrNotFound, "the repository has no such role")
	}
	return v.look.role(ctx, role, metadata.TARGETS)
}

// Policy returns the recovery policy. A repository without one disables nothing.
func (v *View) Policy(ctx context.Context) (release.Policy, error) {
	none := release.Policy{Schema: release.Schema}
	t, found, err := v.policyTarget(ctx)
	if err != nil || !found {
		return none, err
	}
	path, err := v.Download(ctx, t, v.look.c.downloads())
	if err != nil {
		return none, err
	}
	text, err := os.ReadFile(path)
	if err = errors.Join(err, os.Remove(path)); err != nil {
		return none, refuse(path, ErrState, "%v", err)
	}
	p, err := release.ParsePolicy(text)
	if err != nil {
		return none, refuse(release.PolicyPath, ErrMalformed, "%v", err)
	}
	return p, nil
}

// policyTarget is where the recovery policy is, if there is one.
func (v *View) policyTarget(ctx context.Context) (t Target, found bool, err error) {
	err = v.load(ctx, release.PolicyRole)
	if errors.Is(err, ErrNotFound) {
		return Target{}, false, nil
	}
	if err != nil {
		return Target{}, false, err
	}
	signed := v.look.trusted.Targets[release.PolicyRole].Signed.Targets[release.PolicyPath]
	if signed == nil {
		return Target{}, false, nil
	}
	if signed.Length > release.MaxPolicy {
		return Target{}, false, refuse(release.PolicyPath, ErrSize, "%d bytes", signed.Length)
	}
	return targetOf(release.PolicyRole, release.PolicyPath, signed), true, nil
}
