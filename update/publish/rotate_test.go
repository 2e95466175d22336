package publish_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bailey/update/publish"
	"bailey/update/trust"

	"github.com/google/go-cmp/cmp"
)

func TestRotation(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if _, err := s.release("1"); err != nil {
		t.Fatal(err)
	}
	s.offers()
	change := publish.Rotation{
		"root": holders(t, 2, key("root-d"), key("root-e")), "targets": holders(t, 1, key("targets-b")),
		"snapshot": holders(t, 1, key("snapshot-b")), "timestamp": holders(t, 1, key("timestamp-b")),
	}
	fresh := []publish.Signer{key("root-d"), key("root-e"), key("targets-b"), key("snapshot-b"), key("timestamp-b")}
	err := s.try(func(r *publish.Repository) error { return r.Rotate(t.Context(), change, append(fresh, key("root-a"))) })
	if !errors.Is(err, publish.ErrSigners) {
		t.Errorf("one old key rotates: %v", err)
	}
	err = s.try(func(r *publish.Repository) error { return r.Rotate(t.Context(), change, s.all) })
	if !errors.Is(err, publish.ErrSigners) {
		t.Errorf("the new keys did not sign: %v", err)
	}
	if diff := cmp.Diff([]string{"1"}, s.offers()); diff != "" {
		t.Fatalf("a rotation that failed did something (-want +got):\n%s", diff)
	}
	s.with(func(r *publish.Repository) error { return r.Rotate(t.Context(), change, append(s.all, fresh...)) })
	if diff := cmp.Diff([]string{"1"}, s.offers()); diff != "" {
		t.Errorf("after the rotation (-want +got):\n%s", diff)
	}
	if _, err := s.release("2"); !errors.Is(err, publish.ErrSigners) {
		t.Errorf("revoked keys announce: %v", err)
	}
	s.online = fresh
	if _, err := s.release("3"); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"3", "2", "1"}, s.offers()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if r := s.verify(); r.Versions.Root != 2 || len(r.Problems) != 0 {
		t.Errorf("%+v", r)
	}
}

// TestInterruptedRotation: the new root is written and nothing under it.
func TestInterruptedRotation(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if _, err := s.release("1"); err != nil {
		t.Fatal(err)
	}
	before := map[string][]byte{}
	entries, err := os.ReadDir(filepath.Join(s.cfg.Dir, "metadata"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if before[e.Name()], err = os.ReadFile(filepath.Join(s.cfg.Dir, "metadata", e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	fresh := append(s.all, key("timestamp-b"))
	rotate := func(r *publish.Repository) error {
		return r.Rotate(t.Context(), publish.Rotation{"timestamp": holders(t, 1, key("timestamp-b"))}, fresh)
	}
	s.with(rotate)
	root, err := os.ReadFile(filepath.Join(s.cfg.Dir, "metadata", "2.root.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(s.cfg.Dir, "metadata")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(s.cfg.Dir, "metadata"), 0o755); err != nil {
		t.Fatal(err)
	}
	before["2.root.json"] = root
	for name, text := range before {
		if err := os.WriteFile(filepath.Join(s.cfg.Dir, "metadata", name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.plan(); !errors.Is(err, trust.ErrSignature) {
		t.Errorf("a machine in between: %v", err)
	}
	s.with(func(r *publish.Repository) error { return r.Announce(t.Context(), fresh) })
	if diff := cmp.Diff([]string{"1"}, s.offers()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAVendorsKeyIsRevoked(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if _, err := s.release("1"); err != nil {
		t.Fatal(err)
	}
	s.with(func(r *publish.Repository) error {
		return r.AddVendor(t.Context(), stream, holders(t, 1, key("acme-b")), s.all)
	})
	p, err := s.plan()
	if err != nil || len(p.Streams[0].Offers) != 0 || !strings.Contains(p.Streams[0].Problem, "not signed as it must be") {
		t.Errorf("%+v, %v", p, err)
	}
	if r := s.verify(); len(r.Problems) != 1 {
		t.Errorf("%v", r.Problems)
	}
	if _, err := s.release("2"); !errors.Is(err, publish.ErrSigners) {
		t.Errorf("the revoked key signs: %v", err)
	}
	s.with(func(r *publish.Repository) error {
		if _, err := r.Release(t.Context(), pack(t, describe(t, "2"), "x"), []publish.Signer{key("acme-b")}); err != nil {
			return err
		}
		return r.Announce(t.Context(), s.online)
	})
	if diff := cmp.Diff([]string{"2"}, s.offers()); diff != "" {
		t.Errorf("what the revoked key signed is carried over (-want +got):\n%s", diff)
	}
}

// TestRootSignersInDifferentPlaces: a draft goes from one to the next.
func TestRootSignersInDifferentPlaces(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if _, err := s.release("1"); err != nil {
		t.Fatal(err)
	}
	s.offers()
	var draft []byte
	s.with(func(r *publish.Repository) error {
		var err error
		draft, err = r.DraftRoot(publish.Rotation{"root": holders(t, 2, key("root-a"), key("root-d")), "timestamp": holders(t, 1, key("timestamp-b"))})
		return err
	})
	adopt := func(text []byte, signers ...publish.Signer) error {
		return s.try(func(r *publish.Repository) error { return r.AdoptRoot(t.Context(), text, append(s.online, signers...)) })
	}
	for i, who := range []string{"", "root-a", "mallory", "root-b", "root-d"} {
		if who != "" {
			var err error
			if draft, err = publish.SignDraft(t.Context(), draft, []publish.Signer{key(who)}); err != nil {
				t.Fatal(err)
			}
		}
		d, err := publish.ReadDraft(draft)
		if err != nil || d.Version != 2 || len(d.Signed) != i || len(d.Roles) != 4 {
			t.Errorf("%s: %+v, %v", who, d, err)
		}
		if who != "root-d" {
			if err := adopt(draft, key("timestamp-b")); !errors.Is(err, publish.ErrSigners) {
				t.Errorf("after %q: %v", who, err)
			}
		}
	}
	changed := []byte(strings.Replace(string(draft), `"threshold": 2`, `"threshold": 1`, 1))
	if bytes.Equal(changed, draft) {
		t.Fatal("there is no threshold in the draft")
	}
	if err := adopt(changed, key("timestamp-b")); !errors.Is(err, publish.ErrSigners) {
		t.Errorf("a draft that was changed after it was signed: %v", err)
	}
	if err := adopt(draft); !errors.Is(err, publish.ErrSigners) {
		t.Errorf("nobody signs the timestamp: %v", err)
	}
	if diff := cmp.Diff([]string{"1"}, s.offers()); diff != "" {
		t.Fatalf("a draft that was not adopted did something (-want +got):\n%s", diff)
	}
	if err := adopt(draft, key("timestamp-b")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1"}, s.offers()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if r := s.verify(); r.Versions.Root != 2 || len(r.Problems) != 0 {
		t.Errorf("%+v", r)
	}
	if err := adopt(draft, key("timestamp-b")); err == nil {
		t.Error("a draft is adopted twice")
	}
}
