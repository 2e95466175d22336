package publish_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"bailey/update/bundle"
	"bailey/update/publish"
	"bailey/update/trust"
)

// content is what no compressor makes small, and what of it changes with each version.
func content(version int) string {
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for i := range 12_000 {
		fmt.Fprintf(&b, "%016x\n", r.Uint64())
		if i%4000 == 7 {
			fmt.Fprintf(&b, "rule of version %d\n", version)
		}
	}
	return b.String()
}

// TestDeltas: a machine that has an older release fetches little, and has the same in the end.
func TestDeltas(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var last publish.Published
	s.with(func(r *publish.Repository) error {
		for v := 1; v <= 5; v++ {
			p, err := r.Release(t.Context(), pack(t, describe(t, fmt.Sprint(v)), content(v)), []publish.Signer{key("acme")})
			if err != nil {
				return err
			}
			if len(p.Deltas) != min(v-1, 3) {
				t.Errorf("version %d has deltas from %v", v, p.Deltas)
			}
			last = p
		}
		return r.Announce(t.Context(), s.online)
	})
	if r := s.verify(); len(r.Problems) != 0 || len(r.Unused) != 1+2+3 {
		t.Errorf("%v, unused %v", r.Problems, r.Unused)
	}

	c, err := trust.New(trust.Config{Dir: s.state, Root: s.cfg.Root, Mirrors: []trust.Mirror{trust.At(s.url)}, Now: s.cfg.Now})
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	offers, _, err := v.Offers(t.Context(), stream)
	if err != nil || len(offers) != 5 || len(offers[0].Deltas) != 3 || len(offers[1].Deltas) != 0 {
		t.Fatalf("%+v, %v", offers, err)
	}
	fetch := func(target trust.Target) *os.File {
		path, err := v.Download(t.Context(), target, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	old := t.TempDir()
	m, err := bundle.Unpack(fetch(offers[2].Target), old, bundle.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	d := offers[0].Deltas[1]
	if d.Base.String() != "3" || d.Length*20 > last.Length {
		t.Errorf("a delta from %s of %d bytes, and the bundle has %d", d.Base, d.Length, last.Length)
	}
	to := t.TempDir()
	got, err := bundle.ApplyDelta(fetch(d.Target), old, m, to, bundle.Limits{})
	if err != nil || !got.Release.Equal(offers[0].Release) {
		t.Fatalf("%+v, %v", got.Release, err)
	}
	if text, err := os.ReadFile(filepath.Join(to, "rules")); err != nil || string(text) != content(5) {
		t.Errorf("%d bytes, %v", len(text), err)
	}

	if err := os.WriteFile(filepath.Join(s.cfg.Dir, "targets", "acme/edr/content", d.SHA256+"."+filepath.Base(d.Path)), []byte("forged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.verify(); len(r.Problems) != 1 {
		t.Errorf("a spoilt delta: %v", r.Problems)
	}
}
