package publish_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bailey/update/publish"
	"bailey/update/release"
	"bailey/update/trust"

	"github.com/google/go-cmp/cmp"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if got := s.offers(); len(got) != 0 {
		t.Errorf("an empty stream offers %v", got)
	}
	for _, v := range []string{"1", "1.1"} {
		if _, err := s.release(v); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"1.1", "1"}, s.offers()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if r := s.verify(); len(r.Problems) != 0 || len(r.Unused) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestReleaseRefuses(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if _, err := s.release("1.1"); err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"1.1", "1.1.0"} {
		if _, err := s.release(v); !errors.Is(err, publish.ErrExists) {
			t.Errorf("%s again: %v", v, err)
		}
	}
	try := func(d release.Description, signer string) error {
		file := pack(t, d, "x")
		return s.try(func(r *publish.Repository) error {
			_, err := r.Release(t.Context(), file, []publish.Signer{key(signer)})
			return err
		})
	}
	if err := try(describe(t, "2"), "mallory"); !errors.Is(err, publish.ErrSigners) {
		t.Errorf("another key: %v", err)
	}
	d := describe(t, "2")
	d.Vendor = "globex"
	if err := try(d, "acme"); !errors.Is(err, publish.ErrNoRole) {
		t.Errorf("another vendor: %v", err)
	}
	d = describe(t, "2")
	d.Epoch = 5
	if err := try(d, "acme"); err != nil {
		t.Fatal(err)
	}
	if err := try(describe(t, "3"), "acme"); err == nil {
		t.Error("the epoch runs back")
	}
	if err := s.try(func(r *publish.Repository) error {
		_, err := r.Release(t.Context(), filepath.Join(s.cfg.Dir, "metadata", "timestamp.json"), []publish.Signer{key("acme")})
		return err
	}); err == nil {
		t.Error("what is no bundle is published")
	}
	if diff := cmp.Diff([]string{"1.1"}, s.offers()); diff != "" {
		t.Errorf("what was not announced is seen (-want +got):\n%s", diff)
	}
}

// TestVendorsSignAlone: whoever signs releases needs no key of the repository's, and the other way round.
func TestVendorsSignAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	file := pack(t, describe(t, "1"), "x")
	s.with(func(r *publish.Repository) error {
		if r.CanAnnounce([]publish.Signer{key("acme")}) || !r.CanAnnounce(s.online) {
			t.Error("who can announce?")
		}
		_, err := r.Release(t.Context(), file, []publish.Signer{key("acme")})
		return err
	})
	if got := s.offers(); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if err := s.try(func(r *publish.Repository) error { return r.Announce(t.Context(), []publish.Signer{key("acme")}) }); !errors.Is(err, publish.ErrSigners) {
		t.Errorf("a vendor announces: %v", err)
	}
	s.with(func(r *publish.Repository) error { return r.Announce(t.Context(), s.online) })
	if diff := cmp.Diff([]string{"1"}, s.offers()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOldestGoFirst(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.with(func(r *publish.Repository) error {
		for i := range publish.MaxReleases + 3 {
			d := describe(t, fmt.Sprintf("1.%d", i+1))
			if i == publish.MaxReleases+2 {
				d.RollbackTo = []release.Version{describe(t, "1.3").Version}
			}
			p, err := r.Release(t.Context(), pack(t, d, "x"), []publish.Signer{key("acme")})
			if err != nil {
				return err
			}
			if want := i >= publish.MaxReleases; len(p.Dropped) == 1 != want {
				t.Errorf("release %d drops %v", i+1, p.Dropped)
			}
		}
		if _, err := r.Release(t.Context(), pack(t, describe(t, "0.1"), "x"), []publish.Signer{key("acme")}); err == nil {
			t.Error("one that is older than all is published, to go at once")
		}
		return r.Announce(t.Context(), s.online)
	})
	got := s.offers()
	if len(got) != publish.MaxReleases || got[0] != "1.50" || got[len(got)-1] != "1.3" || got[len(got)-2] != "1.5" {
		t.Errorf("%d: %v", len(got), got)
	}
	if r := s.verify(); len(r.Problems) != 0 || len(r.Unused) != 4 {
		t.Errorf("%v, unused %v", r.Problems, r.Unused)
	}
}

func TestPolicyDisables(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, v := range []string{"1", "2"} {
		if _, err := s.release(v); err != nil {
			t.Fatal(err)
		}
	}
	s.with(func(r *publish.Repository) error {
		p, err := r.Policy()
		if err != nil {
			return err
		}
		p.Disabled = append(p.Disabled, release.Disabled{Vendor: "acme", Product: "edr", Kind: release.Content, Version: describe(t, "2").Version, Reason: "crashes"})
		if err := r.SetPolicy(t.Context(), p, s.all); err != nil {
			return err
		}
		return r.Announce(t.Context(), s.online)
	})
	if diff := cmp.Diff([]string{"1"}, s.offers()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if r := s.verify(); r.Disabled != 1 || len(r.Problems) != 0 {
		t.Errorf("%+v", r)
	}
}

// TestAKeyInTheCloud: two keys of which one is no file's and no ed25519's.
func TestAKeyInTheCloud(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	both := []publish.Signer{key("acme"), cloudKey{private}}
	s.with(func(r *publish.Repository) error {
		if err := r.AddVendor(t.Context(), stream, holders(t, 2, both...), s.all); err != nil {
			return err
		}
		file := pack(t, describe(t, "1"), "x")
		if _, err := r.Release(t.Context(), file, both[:1]); !errors.Is(err, publish.ErrSigners) {
			t.Errorf("one of two: %v", err)
		}
		if _, err := r.Release(t.Context(), file, both); err != nil {
			return err
		}
		return r.Announce(t.Context(), s.online)
	})
	if diff := cmp.Diff([]string{"1"}, s.offers()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if _, err := s.release("1"); err != nil {
		t.Fatal(err)
	}
	was := s.verify().Versions
	s.now = start.Add(25 * time.Hour)
	if _, err := s.plan(); !errors.Is(err, trust.ErrExpired) {
		t.Errorf("a day later: %v", err)
	}
	s.with(func(r *publish.Repository) error { return r.Announce(t.Context(), s.online) })
	if now := s.verify().Versions; now.Snapshot != was.Snapshot || now.Timestamp != was.Timestamp+1 {
		t.Errorf("a renewal without news made %+v of %+v", now, was)
	}
	s.now = start.Add(5 * 24 * time.Hour)
	s.with(func(r *publish.Repository) error { return r.Announce(t.Context(), s.online) })
	if now := s.verify().Versions; now.Snapshot != was.Snapshot+1 {
		t.Errorf("the snapshot was not renewed: %+v", now)
	}
	s.now = start.Add(50 * 24 * time.Hour)
	s.with(func(r *publish.Repository) error { return r.Announce(t.Context(), s.online) })
	if r := s.verify(); len(r.Expiring) != 1 || r.Expiring[0].Role != stream.Role() {
		t.Errorf("%+v", r.Expiring)
	}
	s.now = start.Add(80 * 24 * time.Hour)
	s.with(func(r *publish.Repository) error {
		if err := r.Renew(t.Context(), "targets", s.all); err != nil {
			return err
		}
		if err := r.Renew(t.Context(), stream.Role(), []publish.Signer{key("acme")}); err != nil {
			return err
		}
		return r.Announce(t.Context(), s.online)
	})
	if diff := cmp.Diff([]string{"1"}, s.offers()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestWrongClock: what was signed in the wrong year would keep every machine there.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, wrong := range []time.Time{start.Add(-time.Hour), start.Add(366 * 24 * time.Hour)} {
		s.now = wrong
		if err := s.try(func(r *publish.Repository) error { return r.Announce(t.Context(), s.online) }); !errors.Is(err, publish.ErrClock) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
	// When the root has really expired, it is rotated to itself.
	s.with(func(r *publish.Repository) error {
		return r.Rotate(t.Context(), publish.Rotation{"targets": holders(t, 1, key("targets"))}, s.all)
	})
	if got := s.offers(); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// TestWhoeverWritesTheDirectorySignsNothing: a change on top of what somebody else put there is not signed.
func TestWhoeverWritesTheDirectorySignsNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	other := newSite(t)
	path := filepath.Join(s.cfg.Dir, "metadata", "2.targets.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), "acme/edr", "acme/xdr", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if r, err := publish.Open(s.cfg); err == nil {
		r.Close()
		t.Error("changed targets are opened")
	}
	// Another repository in its place, with the same keys but another root: a root is what it is known by.
	wrong := other.cfg
	wrong.Root = []byte(strings.Replace(string(other.cfg.Root), `"version":1`, `"version":2`, 1))
	if r, err := publish.Open(wrong); err == nil {
		r.Close()
		t.Error("a root that nobody signed is opened")
	}
}

func TestVerifyFinds(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(path string) error{
		"other_bytes": func(path string) error { return os.WriteFile(path, []byte("forged"), 0o644) },
		"gone":        os.Remove,
		"cut":         func(path string) error { return os.Truncate(path, 10) },
	} {
		s := newSite(t)
		p, err := s.release("1")
		if err != nil {
			t.Fatal(err)
		}
		if err := spoil(filepath.Join(s.cfg.Dir, "targets", "acme/edr/content", p.SHA256+".1.tar.zst")); err != nil {
			t.Fatal(err)
		}
		if r := s.verify(); len(r.Problems) != 1 {
			t.Errorf("%s: %v", name, r.Problems)
		}
	}
	s := newSite(t)
	s.now = start.Add(48 * time.Hour)
	if _, err := publish.Verify(t.Context(), s.cfg); !errors.Is(err, trust.ErrExpired) {
		t.Errorf("an expired repository: %v", err)
	}
}

func TestOneWriterAtATime(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.with(func(*publish.Repository) error {
		if r, err := publish.Open(s.cfg); err == nil {
			r.Close()
			t.Error("two writers")
		}
		return nil
	})
	if _, err := publish.Init(t.Context(), s.cfg, publish.Setup{
		Root: holders(t, 1, key("x")), Targets: holders(t, 1, key("x")), Snapshot: holders(t, 1, key("x")), Timestamp: holders(t, 1, key("x")), Policy: holders(t, 1, key("x")),
	}, s.all); !errors.Is(err, publish.ErrExists) {
		t.Errorf("a repository is made over another: %v", err)
	}
}

func TestHandlerServesARepositoryAndNothingElse(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := errors.Join(
		os.WriteFile(filepath.Join(s.cfg.Dir, "secret"), []byte("x"), 0o600),
		os.Symlink("/etc/passwd", filepath.Join(s.cfg.Dir, "metadata", "9.root.json")),
	); err != nil {
		t.Fatal(err)
	}
	ask := func(method, path, tag string) int {
		r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tag != "" {
			r.Header.Set("If-None-Match", tag)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	for path, want := range map[string]int{
		"/metadata/timestamp.json": 200, "/metadata/1.root.json": 200, "/metadata/2.root.json": 404, "/metadata/9.root.json": 404, "/metadata/": 404, "/metadata": 404,
		"/": 404, "/secret": 404, "/.lock": 404, "/metadata/../secret": 404, "/metadata/%2e%2e/secret": 404, "/targets/": 404,
	} {
		if got := ask(http.MethodGet, path, ""); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	if got := ask(http.MethodPut, "/metadata/timestamp.json", ""); got != 405 {
		t.Errorf("PUT: %d", got)
	}
	if got := ask(http.MethodGet, "/metadata/1.root.json", `"metadata/1.root.json"`); got != 304 {
		t.Errorf("with its tag: %d", got)
	}
}
