package publish_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"bailey/update/bundle"
	"bailey/update/publish"
	"bailey/update/release"
	"bailey/update/trust"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// memoryKey is a key without a file.
type memoryKey struct{ private ed25519.PrivateKey }

func (k memoryKey) Public() crypto.PublicKey { return k.private.Public() }

func (k memoryKey) Sign(_ context.Context, message []byte) ([]byte, error) {
	return ed25519.Sign(k.private, message), nil
}

// cloudKey stands for a key in a module that signs ECDSA.
type cloudKey struct{ private *ecdsa.PrivateKey }

func (k cloudKey) Public() crypto.PublicKey { return k.private.Public() }

func (k cloudKey) Sign(_ context.Context, message []byte) ([]byte, error) {
	sum := sha256.Sum256(message)
	return ecdsa.SignASN1(rand.Reader, k.private, sum[:])
}

func key(name string) publish.Signer {
	seed := sha256.Sum256([]byte("publish " + name))
	return memoryKey{ed25519.NewKeyFromSeed(seed[:])}
}

func holders(t testing.TB, threshold int, signers ...publish.Signer) publish.Holders {
	t.Helper()
	h := publish.Holders{Threshold: threshold}
	for _, s := range signers {
		p, err := publish.PublicOf(s.Public())
		if err != nil {
			t.Fatal(err)
		}
		h.Keys = append(h.Keys, p)
	}
	return h
}

// site is a repository with its keys, a web server and a machine that follows it.
type site struct {
	t      *testing.T
	cfg    publish.Config
	now    time.Time
	url    string
	online []publish.Signer // snapshot and timestamp
	all    []publish.Signer
	state  string
}

var stream = release.Stream{Vendor: "acme", Product: "edr", Kind: release.Content}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, now: start, state: t.TempDir(), online: []publish.Signer{key("snapshot"), key("timestamp")}}
	s.all = append(s.online, key("root-a"), key("root-b"), key("root-c"), key("targets"), key("policy"))
	s.cfg = publish.Config{Dir: t.TempDir(), Now: func() time.Time { return s.now }}
	root, err := publish.Init(t.Context(), s.cfg, publish.Setup{
		Root: holders(t, 2, key("root-a"), key("root-b"), key("root-c")), Targets: holders(t, 1, key("targets")),
		Snapshot: holders(t, 1, key("snapshot")), Timestamp: holders(t, 1, key("timestamp")), Policy: holders(t, 1, key("policy")),
	}, s.all)
	if err != nil {
		t.Fatal(err)
	}
	s.cfg.Root = root
	h, err := publish.Handler(s.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	s.url = server.URL
	s.with(func(r *publish.Repository) error {
		return r.AddVendor(t.Context(), stream, holders(t, 1, key("acme")), s.all)
	})
	return s
}

// with opens the repository for one change.
func (s *site) with(f func(r *publish.Repository) error) {
	s.t.Helper()
	if err := s.try(f); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) try(f func(r *publish.Repository) error) error {
	s.t.Helper()
	r, err := publish.Open(s.cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	return f(r)
}

func describe(t testing.TB, version string) release.Description {
	t.Helper()
	v, err := release.ParseVersion(version)
	if err != nil {
		t.Fatal(err)
	}
	return release.Description{Schema: 1, Vendor: "acme", Product: "edr", Kind: release.Content, Version: v, Platforms: []string{"linux/amd64", "linux/arm64"}, Urgency: release.Routine}
}

// pack makes a bundle in a file.
func pack(t testing.TB, d release.Description, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rules"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bundle")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bundle.Pack(f, dir, d, bundle.Limits{}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

// release publishes and announces.
func (s *site) release(version string) (p publish.Published, err error) {
	s.t.Helper()
	file := pack(s.t, describe(s.t, version), "rules of "+version)
	err = s.try(func(r *publish.Repository) error {
		var err error
		if p, err = r.Release(s.t.Context(), file, []publish.Signer{key("acme")}); err != nil {
			return err
		}
		return r.Announce(s.t.Context(), s.online)
	})
	return p, err
}

// plan is what a machine sees.
func (s *site) plan() (trust.Plan, error) {
	c, err := trust.New(trust.Config{Dir: s.state, Root: s.cfg.Root, Mirrors: []trust.Mirror{trust.At(s.url)}, Now: s.cfg.Now})
	if err != nil {
		return trust.Plan{}, err
	}
	v, err := c.Refresh(s.t.Context())
	if err != nil {
		return trust.Plan{}, err
	}
	defer v.Close()
	return v.Plan(s.t.Context(), stream)
}

// offers are the versions that a machine sees, newest first.
func (s *site) offers() []string {
	s.t.Helper()
	p, err := s.plan()
	if err != nil {
		s.t.Fatal(err)
	}
	out := []string{}
	for _, o := range p.Streams[0].Offers {
		out = append(out, o.Release.Version.String())
	}
	return out
}

func (s *site) verify() publish.Report {
	s.t.Helper()
	report, err := publish.Verify(s.t.Context(), s.cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return report
}
