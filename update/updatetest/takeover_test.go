package updatetest_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"bailey/update/trust"
	"bailey/update/updatetest"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// forged is what mallory would have everybody run.
const forged = "globex 0ne" // as long as the real one

// diamond makes acme delegate globex's role to itself, and the mirror serve acme's file for it, of the same version and length.
func diamond(s *stand) {
	k := updatetest.NewKey("acme")
	evil := metadata.Targets(s.Roles[globex.Role()].Signed.Expires)
	evil.Signed.Version = s.Roles[globex.Role()].Signed.Version + 1
	s.Roles[acme.Role()].Signed.Delegations = &metadata.Delegations{
		Keys:  map[string]*metadata.Key{k.ID: k.Public},
		Roles: []metadata.DelegatedRole{{Name: globex.Role(), KeyIDs: []string{k.ID}, Threshold: 1, Terminating: true, Paths: []string{acme.Pattern()}}},
	}
	s.Commit()
	of := &updatetest.Repository{Roles: map[string]*updatetest.Targets{"x": evil}, Files: map[string][]byte{}}
	of.Target("x", globexPath, []byte(forged), nil)
	for path, text := range of.Files {
		s.Files[path] = text
	}
	s.Files["metadata/2."+globex.Role()+".json"] = updatetest.Signed(evil, k)
}

func TestDiamond(t *testing.T) {
	t.Parallel()
	bare := newStand(t)
	bare.Bare = true
	diamond(bare)
	walk := strings.Replace(acmePath, "1.0", "none", 1)
	if text, _, err := newStock(t, bare).ask(bare, walk, globexPath); text != forged {
		t.Errorf("the stock client without digests in the snapshot gets %q, %v: the attack is not the one that it was", text, err)
	}
	if text, err := bare.newest(globex); !errors.Is(err, trust.ErrMalformed) {
		t.Errorf("a snapshot without digests: %q, %v", text, err)
	}

	s := newStand(t)
	s.want(t, globex, "globex one")
	diamond(s)
	if text, err := s.newest(acme); !errors.Is(err, trust.ErrDelegation) {
		t.Errorf("acme: %q, %v", text, err)
	}
	if text, err := s.newest(globex); !errors.Is(err, trust.ErrMismatch) && !errors.Is(err, trust.ErrSize) {
		t.Errorf("globex: %q, %v", text, err)
	}
}

// TestPanics: what one vendor's key can write crashes the stock client, and is a refusal of that vendor's alone here.
func TestPanics(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"null_target", "null_key", "short_key"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t)
			attacks[name].do(s)
			if _, panicked, err := newStock(t, s).ask(s, strings.Replace(acmePath, "1.0", "none", 1)); !panicked {
				t.Errorf("the stock client survives (%v): the attack is not the one that it was", err)
			}
			if text, err := s.newest(acme); !errors.Is(err, attacks[name].class) {
				t.Errorf("acme: %q, %v", text, err)
			}
			s.want(t, globex, "globex one")
		})
	}
}

// TestStockClientTakesAnOldTimestamp: a machine without a past cannot know better, unless its agent does.
func TestStockClientTakesAnOldTimestamp(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	old := s.Keep()
	s.Release(acme, "1.1", []byte("acme two"))
	s.Commit()
	s.Files = old
	if text, _, err := newStock(t, s).ask(s, acmePath); text != "acme one" {
		t.Errorf("the stock client refuses: %q, %v", text, err)
	}
	s.config.Minimum = trust.Versions{Timestamp: 2, Snapshot: 2}
	s.restart(t)
	if text, err := s.newest(acme); !errors.Is(err, trust.ErrRollback) {
		t.Errorf("%q, %v", text, err)
	}
}

// rotate replaces every root key.
func rotate(s *stand) {
	old := s.Keys[metadata.ROOT]
	s.Assign(metadata.ROOT, 2, updatetest.NewKey("root-d"), updatetest.NewKey("root-e"), updatetest.NewKey("root-f"))
	s.CommitRoot(old...)
	s.Commit()
}

// takeover is what the holder of two revoked root keys serves: another second root, and everything below it.
func takeover(s *stand) {
	s.Root.Signed.Version = 1
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		s.Assign(role, 1, mallory)
	}
	s.CommitRoot(updatetest.NewKey("root-a"), updatetest.NewKey("root-b"))
	for _, role := range []string{acme.Role(), globex.Role()} {
		s.Keys[role] = []updatetest.Key{mallory}
	}
	s.Delegate(acme.Role(), acme.Pattern(), 1, mallory)
	s.Release(acme, "6.6.6", []byte("forged"))
	s.Commit()
}

func TestRevokedRootKeysAndTheEmbeddedRoot(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	k := newStock(t, s)
	rotate(s)
	s.want(t, acme, "acme one")
	if _, _, err := k.ask(s, acmePath); err != nil {
		t.Fatal(err)
	}
	honest := s.Keep()
	takeover(s)
	stolen := s.Files["metadata/2.root.json"]
	path := strings.Replace(acmePath, "1.0", "6.6.6", 1)
	if text, _, err := k.ask(s, path); text != "forged" {
		t.Errorf("the stock client, which begins at its embedded root, gets %q, %v: the attack is not the one that it was", text, err)
	}
	s.restart(t)
	if text, err := s.newest(acme); !errors.Is(err, trust.ErrSignature) {
		t.Errorf("%q, %v", text, err)
	}
	s.Files["metadata/3.root.json"] = s.Files["metadata/2.root.json"]
	s.restart(t)
	if text, err := s.newest(acme); !errors.Is(err, trust.ErrSignature) && !errors.Is(err, trust.ErrRollback) {
		t.Errorf("as the third root: %q, %v", text, err)
	}

	// Without the newest root, no other is believed in its place: that would be the takeover.
	for name, spoil := range map[string]func() error{
		"gone":    func() error { return os.Remove(s.config.Dir + "/roots/2.json") },
		"damaged": func() error { return os.WriteFile(s.config.Dir+"/roots/2.json", []byte("{}"), 0o600) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		s.restart(t)
		if text, err := s.newest(acme); !errors.Is(err, trust.ErrState) {
			t.Errorf("%s: %q, %v", name, text, err)
		}
		delete(s.Files, "metadata/2.root.json")
		if text, err := s.newest(acme); !errors.Is(err, trust.ErrState) {
			t.Errorf("%s, and a mirror without it: %q, %v", name, text, err)
		}
		s.Files["metadata/2.root.json"] = stolen
	}
	s.Files = honest
	s.restart(t)
	s.want(t, acme, "acme one") // the mirror has the very root that is missing here
}

func TestRotationIsFollowed(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.want(t, acme, "acme one")
	for range 3 {
		rotate(s)
		old := s.Keys[metadata.ROOT]
		s.Assign(metadata.ROOT, 2, updatetest.NewKey("root-a"), updatetest.NewKey("root-b"), updatetest.NewKey("root-c"))
		s.CommitRoot(old...)
	}
	s.Assign(metadata.TIMESTAMP, 1, updatetest.NewKey("timestamp-b"))
	s.CommitRoot()
	s.Delegate(acme.Role(), acme.Pattern(), 1, updatetest.NewKey("acme-b"))
	s.Release(acme, "2", []byte("acme two"))
	s.Commit()
	s.restart(t)
	s.want(t, acme, "acme two")
	s.config.Root = s.RootFile(8) // the agent was updated meanwhile, and came with a newer root
	s.restart(t)
	s.want(t, acme, "acme two")
}

// TestAnOlderAgentAgain: a newer agent came with a newer root, and was rolled back.
func TestAnOlderAgentAgain(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.want(t, acme, "acme one")
	for range 3 {
		s.CommitRoot()
	}
	s.Commit()
	older := s.config.Root
	s.config.Root = s.RootFile(4)
	s.restart(t)
	s.want(t, acme, "acme one")
	s.config.Root = older
	s.restart(t)
	s.want(t, acme, "acme one")
}

// TestRotationIsFollowedAtOnce: also when there was no newer root a moment ago.
func TestRotationIsFollowedAtOnce(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.want(t, acme, "acme one")
	s.Assign(metadata.TIMESTAMP, 1, updatetest.NewKey("timestamp-b"))
	s.CommitRoot()
	s.Commit()
	s.want(t, acme, "acme one")
	s.Root.Signed.Expires = start.Add(-time.Second)
	s.CommitRoot()
	s.now = start.Add(11 * time.Minute)
	if text, err := s.newest(acme); !errors.Is(err, trust.ErrExpired) {
		t.Fatalf("%q, %v", text, err)
	}
	s.Root.Signed.Expires = start.Add(time.Hour)
	s.CommitRoot()
	s.want(t, acme, "acme one")
}

// TestAYearOffline: the kept timestamp has expired, and root was rotated several times.
func TestAYearOffline(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.want(t, acme, "acme one")
	s.now = start.Add(400 * 24 * time.Hour)
	s.Later(400 * 24 * time.Hour)
	if text, err := s.newest(acme); !errors.Is(err, trust.ErrExpired) {
		t.Fatalf("%q, %v", text, err)
	}
	year := s.now.Add(365 * 24 * time.Hour)
	s.Root.Signed.Expires = year
	for _, role := range s.Roles {
		role.Signed.Expires = year
	}
	rotate(s)
	s.Release(acme, "2", []byte("acme two"))
	s.Commit()
	s.restart(t)
	s.want(t, acme, "acme two")
}

// TestFastForward: stolen online keys sign the highest versions there are, and the year 2100. What is honest then seems old, until the keys are
// replaced.
func TestFastForward(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	honest := struct{ timestamp, snapshot int64 }{s.Timestamp.Signed.Version, s.Snapshot.Signed.Version}
	far := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	s.Timestamp.Signed.Version, s.Snapshot.Signed.Version = 1<<31-2, 1<<31-2
	s.Timestamp.Signed.Expires, s.Snapshot.Signed.Expires = far.Add(time.Hour), far.Add(time.Hour)
	for _, m := range s.Snapshot.Signed.Meta {
		m.Version = 1<<31 - 2
	}
	s.CommitSnapshot()
	was := s.Now
	s.Now = far
	s.CommitTimestamp()
	s.Now = was
	if text, err := s.newest(acme); err == nil {
		t.Fatalf("%q", text)
	}

	s.Timestamp.Signed.Version, s.Snapshot.Signed.Version = honest.timestamp, honest.snapshot
	s.Later(0)
	s.Commit()
	if text, err := s.newest(acme); err == nil {
		t.Fatalf("the attack does nothing: %q", text)
	}
	s.Assign(metadata.TIMESTAMP, 1, updatetest.NewKey("timestamp-b"))
	s.Assign(metadata.SNAPSHOT, 1, updatetest.NewKey("snapshot-b"))
	s.CommitRoot()
	s.Commit()
	s.restart(t)
	s.want(t, acme, "acme one")
}

// TestTimeDoesNotRunBack: a clock that is set back does not make what has expired count again.
func TestTimeDoesNotRunBack(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.Later(30 * 24 * time.Hour)
	s.Commit()
	s.now = s.Now
	s.want(t, acme, "acme one")
	s.now = start.Add(-10 * 365 * 24 * time.Hour)
	s.restart(t)
	v, err := s.client.Refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !v.At.Equal(s.Now) {
		t.Errorf("judged by %s, and it was signed at %s", v.At, s.Now)
	}
	v.Close()
	s.Roles[acme.Role()].Signed.Expires = s.Now.Add(-time.Hour)
	s.Commit()
	if text, err := s.newest(acme); !errors.Is(err, trust.ErrExpired) {
		t.Errorf("%q, %v", text, err)
	}
	fresh := newStand(t)
	fresh.now = start.Add(-10 * 365 * 24 * time.Hour)
	fresh.config.Built = start.Add(25 * time.Hour)
	fresh.restart(t)
	if text, err := fresh.newest(acme); !errors.Is(err, trust.ErrExpired) {
		t.Errorf("older than the agent: %q, %v", text, err)
	}
}

// TestFlippedBits: whatever bit of whatever file is wrong, the answer is the signed one or none.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	honest := s.Keep()
	refused := 0
	for path, text := range honest {
		for i := 0; i < len(text); i += 1 + len(text)/24 {
			spoilt := append([]byte{}, text...)
			spoilt[i] ^= 1 << (i % 8)
			s.Files = map[string][]byte{}
			for p, b := range honest {
				s.Files[p] = b
			}
			s.Files[path] = spoilt
			s.config.Dir = t.TempDir()
			s.restart(t)
			got, err := s.newest(acme)
			if err != nil {
				refused++
			}
			if err == nil && got != "acme one" || errors.Is(err, trust.ErrInternal) {
				t.Fatalf("%s with a bit of byte %d: %q, %v", path, i, got, err)
			}
		}
	}
	if refused < 60 {
		t.Errorf("only %d were refused", refused)
	}
}
