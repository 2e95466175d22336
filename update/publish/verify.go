package publish

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"bailey/update/bundle"
	"bailey/update/release"
	"bailey/update/trust"
)

// Report is what Verify found. Problems are empty if all is well.
type Report struct {
	Versions trust.Versions `json:"versions"`
	Expires  time.Time      `json:"expires"` // when the timestamp must have been signed again
	Streams  []StreamReport `json:"streams"`
	Disabled int            `json:"disabled"`           // releases that the recovery policy disables
	Expiring []Expiring     `json:"expiring,omitempty"` // roles that must be signed again within two weeks
	Unused   []string       `json:"unused,omitempty"`   // files that nothing refers to; old machines may still be fetching them
	Problems []string       `json:"problems,omitempty"` // what a machine would stumble over
}

// Expiring is a role whose signature ends soon.
type Expiring struct {
	Role    string    `json:"role"`
	Expires time.Time `json:"expires"`
}

// soon is how long before its end a signature is reported.
const soon = 14 * 24 * time.Hour

// StreamReport is what a stream offers.
type StreamReport struct {
	Stream   string   `json:"stream"`
	Releases []string `json:"releases"` // newest first
}

// Verify looks at a repository as a machine without a past does, and at every bundle as one that installs it.
func Verify(ctx context.Context, cfg Config) (Report, error) {
	cfg = cfg.orDefault()
	state, err := os.MkdirTemp("", "bailey-verify-")
	if err != nil {
		return Report{}, fmt.Errorf("verify the repository: %w", err)
	}
	defer func() { _ = os.RemoveAll(state) }()
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return Report{}, fmt.Errorf("verify the repository: %w", err)
	}
	c, err := trust.New(trust.Config{Dir: state, Root: cfg.Root, Mirrors: []trust.Mirror{trust.At("file://" + dir)}, Now: cfg.Now})
	if err != nil {
		return Report{}, err
	}
	v, err := c.Refresh(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("verify the repository: %w", err)
	}
	defer v.Close()
	return (&verifying{cfg: cfg, view: v, used: map[string]bool{}}).all(ctx)
}

// verifying is one verification.
type verifying struct {
	cfg    Config
	view   *trust.View
	used   map[string]bool // files below targets that something refers to
	report Report
}

func (v *verifying) problem(format string, args ...any) {
	v.report.Problems = append(v.report.Problems, fmt.Sprintf(format, args...))
}

func (v *verifying) all(ctx context.Context) (Report, error) {
	v.report.Versions, v.report.Expires, v.report.Streams = v.view.Versions(), v.view.Expires(), []StreamReport{}
	policy, err := v.view.Policy(ctx)
	if err != nil {
		v.problem("the recovery policy: %v", err)
	}
	v.report.Disabled = len(policy.Disabled)
	for _, s := range v.view.Streams() {
		offers, unusable, err := v.view.Offers(ctx, s)
		if err != nil && !errors.Is(err, trust.ErrNotFound) {
			v.problem("%s: %v", s, err)
		}
		for _, u := range unusable {
			v.problem("%s: %s", u.Path, u.Reason)
		}
		one := StreamReport{Stream: s.String(), Releases: []string{}}
		for _, o := range offers {
			one.Releases = append(one.Releases, o.Release.Version.String())
			v.bundle(o)
		}
		v.report.Streams = append(v.report.Streams, one)
		if ctx.Err() != nil {
			return v.report, ctx.Err()
		}
	}
	v.expiring(ctx)
	return v.report, v.unused()
}

// expiring lists the roles whose signatures end soon; what cannot be read was reported already.
func (v *verifying) expiring(ctx context.Context) {
	roles := []string{"root", "targets", release.PolicyRole}
	for _, s := range v.view.Streams() {
		roles = append(roles, s.Role())
	}
	for _, role := range roles {
		if at, err := v.view.RoleExpires(ctx, role); err == nil && at.Before(v.cfg.Now().Add(soon)) {
			v.report.Expiring = append(v.report.Expiring, Expiring{Role: role, Expires: at})
		}
	}
}

// bundle compares a bundle's bytes with what was signed, and its manifest with what is said about it.
func (v *verifying) bundle(o trust.Offer) {
	name := served(o.Path, o.SHA256)
	v.used[name] = true
	m, sum, n, err := inspect(v.cfg.target(name))
	switch {
	case err != nil:
		v.problem("%s: %v", o.Path, err)
	case sum != o.SHA256 || n != o.Length:
		v.problem("%s: its bytes are not those that were signed", o.Path)
	case !m.Release.Equal(o.Release):
		v.problem("%s: its manifest says something else than its signature", o.Path)
	}
	for _, d := range o.Deltas {
		name := served(d.Path, d.SHA256)
		v.used[name] = true
		if text, err := os.ReadFile(v.cfg.target(name)); err != nil {
			v.problem("%s: %v", d.Path, err)
		} else if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != d.SHA256 {
			v.problem("%s: its bytes are not those that were signed", d.Path)
		}
	}
}

// unused finds files that nothing refers to. Policies of the past are among them.
func (v *verifying) unused() error {
	root := v.cfg.target("")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if !v.used[name] && !strings.HasPrefix(name, release.PolicyRole+"/") {
			v.report.Unused = append(v.report.Unused, name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("verify the repository: %w", err)
	}
	return nil
}

// Manifest reads the manifest of a bundle in a file.
func Manifest(file string) (bundle.Manifest, error) {
	m, _, _, err := inspect(file)
	return m, err
}
