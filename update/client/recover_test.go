package client

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"bailey/update/publish"
	"bailey/update/release"
	"bailey/update/trust"
	"bailey/update/updatetest"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

const day = 24 * time.Hour

// seed is a key of publish in memory.
type seed string

func (s seed) private() ed25519.PrivateKey {
	sum := sha256.Sum256([]byte(s))
	return ed25519.NewKeyFromSeed(sum[:])
}

func (s seed) Public() crypto.PublicKey { return s.private().Public() }

func (s seed) Sign(_ context.Context, message []byte) ([]byte, error) {
	return ed25519.Sign(s.private(), message), nil
}

func keys(names ...string) (out []publish.Signer) {
	for _, n := range names {
		out = append(out, seed(n))
	}
	return out
}

func holders(t *testing.T, threshold int, names ...string) publish.Holders {
	t.Helper()
	h := publish.Holders{Threshold: threshold}
	for _, k := range keys(names...) {
		p, err := publish.PublicOf(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		h.Keys = append(h.Keys, p)
	}
	return h
}

// site is a world whose repository is one that update/publish keeps in a directory.
type site struct {
	*signed
	cfg  publish.Config
	all  []publish.Signer
	body string // of every release, so that deltas are worth it
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{signed: newSigned(t, false), all: keys("root-a", "root-b", "root-c", "targets", "snapshot", "timestamp", "acme")}
	random := make([]byte, 128<<10)
	for i, r := 0, rand.New(rand.NewPCG(1, 2)); i < len(random); i++ {
		random[i] = byte(r.Uint32())
	}
	s.body = string(random)
	s.cfg = publish.Config{Dir: t.TempDir(), Now: func() time.Time { return s.now }}
	root, err := publish.Init(t.Context(), s.cfg, publish.Setup{
		Root: holders(t, 2, "root-a", "root-b", "root-c"), Targets: holders(t, 1, "targets"),
		Snapshot: holders(t, 1, "snapshot"), Timestamp: holders(t, 1, "timestamp"), Policy: holders(t, 1, "policy"),
	}, append(s.all, seed("policy")))
	if err != nil {
		t.Fatal(err)
	}
	s.cfg.Root, s.conf.Root = root, root
	if s.line.server, err = publish.Handler(s.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	s.change(func(r *publish.Repository) error {
		return r.AddVendor(t.Context(), content, holders(t, 1, "acme"), s.all)
	})
	s.boot()
	return s
}

// change does something to the repository and announces it.
func (s *site) change(f func(r *publish.Repository) error) {
	s.t.Helper()
	r, err := publish.Open(s.cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	if err := f(r); err != nil {
		s.t.Fatal(err)
	}
	if err := r.Announce(s.t.Context(), s.all); err != nil {
		s.t.Fatal(err)
	}
}

// release publishes a version; requires is what it needs of the code.
func (s *site) release(version, requires string) {
	s.t.Helper()
	d := updatetest.Describe(content, version)
	if requires != "" {
		d.Requires = map[string]release.Constraint{"code": constraint(requires)}
	}
	file := filepath.Join(s.t.TempDir(), "bundle")
	if err := os.WriteFile(file, bundleOf(s.t, d, s.body+version), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.change(func(r *publish.Repository) error { _, err := r.Release(s.t.Context(), file, s.all); return err })
}

// versions are what was put in force, in order.
func (s *site) versions() (out []string) {
	for _, m := range s.told {
		if v, ok := strings.CutSuffix(m, " committed"); ok {
			out = append(out, v)
		}
	}
	return out
}

// TestVersionsBehind: a machine goes to the newest release that fits it at once, by a delta where there is one from what it has, else by the bundle.
func TestVersionsBehind(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		behind int
		needs  string // of the newest
		want   []string
		delta  bool
	}{
		"three_by_a_delta":        {3, "", []string{"1", "4"}, true},
		"eight_by_the_bundle":     {8, "", []string{"1", "9"}, false},
		"the_newest_does_not_fit": {3, ">=8", []string{"1", "3"}, false},
		"none":                    {0, "", []string{"1"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.release("1", "")
			if u := s.settle(content); u.State != Committed {
				t.Fatalf("%+v", u)
			}
			for i := 1; i < c.behind; i++ {
				s.release(strconv.Itoa(i+1), "")
			}
			if c.behind > 0 {
				s.release(strconv.Itoa(c.behind+1), c.needs)
			}
			for range 200 {
				s.step()
				s.now = s.now.Add(5 * time.Second)
			}
			last := c.want[len(c.want)-1]
			if got := s.versions(); !slices.Equal(got, c.want) || s.inForce() != "7.1 with "+s.body+last {
				t.Errorf("%q", got)
			}
			if u := s.update(content); c.delta != (u.Base != "") {
				t.Errorf("delta from %q", u.Base)
			}
		})
	}
}

// TestAYearOff: a machine was off, or without a network, for 400 days, with a release about to be put in force. Meanwhile everything that it knows has
// expired and all keys of root were replaced, twice.
func TestAYearOff(t *testing.T) {
	t.Parallel()
	for _, off := range []bool{true, false} {
		s := newSite(t)
		s.release("1", "")
		s.settle(content)
		s.release("2", "")
		if err := s.c.Pause(content); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			s.step()
		}
		if u := s.update(content); u.State != Promote {
			t.Fatalf("%+v", u)
		}
		if err := s.c.Resume(content); err != nil {
			t.Fatal(err)
		}
		s.line.become(outages["refused"].how)
		for d := range 400 {
			s.now = s.now.Add(day)
			if !off {
				s.step()
			}
			switch d {
			case 100, 300: // while the old root still counts
				next := map[int][]string{100: {"root-d", "root-e", "root-f"}, 300: {"root-g", "root-h", "root-i"}}[d]
				s.all = append(s.all, keys(next...)...)
				s.change(func(r *publish.Repository) error {
					return r.Rotate(t.Context(), publish.Rotation{metadata.ROOT: holders(t, 2, next...)}, s.all)
				})
			}
			if d%50 == 49 {
				s.change(func(r *publish.Repository) error {
					for _, role := range []string{metadata.TARGETS, content.Role()} {
						if err := r.Renew(t.Context(), role, s.all); err != nil {
							return err
						}
					}
					return nil
				})
			}
		}
		s.release("3", "")
		if off {
			s.boot()
			s.step()
		}
		u := s.update(content)
		if u.State != Promote || !strings.Contains(u.Reason, "the repository was not seen") || s.inForce() != "7.1 with "+s.body+"1" {
			t.Errorf("off %t: %s %s", off, u.State, u.Reason)
		}
		s.line.become(nil)
		s.now = s.now.Add(longestWait)
		u = s.settle(content)
		if u.State != Committed || u.version() != "3" || slices.Contains(s.told, "2 watch") || s.inForce() != "7.1 with "+s.body+"3" {
			t.Errorf("off %t: %s %s: %s, told %q", off, u.version(), u.State, u.Reason, s.told)
		}
	}
}

// clocks are wrong because of a battery or a hand, or beyond what 32 bits count.
var clocks = map[string]time.Time{
	"1970": time.Unix(0, 0),
	"2038": time.Date(2038, 1, 19, 3, 14, 8, 0, time.UTC),
	"2100": time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
}

// TestAWrongClock starts a machine with a wrong clock in any state of an update; after a day the clock is set right. What is in force goes on. By a
// clock that is behind all goes its way, for the time that was signed is known; by one that is ahead nothing new gets a say. When the clock is right
// again, nothing is waited for until the time that the wrong one said.
func TestAWrongClock(t *testing.T) {
	t.Parallel()
	for name, wrong := range clocks {
		for _, state := range []State{Fetch, Rehearse, Shadow, Promote, Watch} {
			t.Run(name+"_"+string(state), func(t *testing.T) {
				t.Parallel()
				s := newSigned(t, false)
				right := s.now
				days := func(from time.Time, n int) { // one after the other, with the repository signed each morning
					for i := range n {
						s.repo.Later(day)
						s.repo.Commit()
						right = right.Add(day)
						for h := range 12 {
							s.now = from.Add(time.Duration(i)*day + time.Duration(h)*2*time.Hour)
							s.step()
						}
					}
				}
				s.publish("1", "one")
				s.settle(content)
				s.publish("2", "two")
				s.host.busy = 1 << 30 // a rehearsal never comes to its turn
				if state == Fetch {
					s.line.targets = outages["503"].how
				}
				if state != Fetch && state != Rehearse {
					s.host.busy = 0
				}
				s.until(content, state)
				s.now = wrong
				s.boot()
				s.host.busy = 0
				s.line.targets = nil
				ahead := wrong.After(right)
				days(wrong, 2)
				u := s.update(content)
				if want := !ahead || state == Watch; want != (s.inForce() == "7.1 with two") || want != (u.State == Committed) {
					t.Errorf("by the wrong clock: %s: %s: %s", s.inForce(), u.State, u.Reason)
				}
				if ahead && !strings.Contains(s.c.Looked().Problem, trust.ErrExpired.Error()) {
					t.Errorf("what is wrong is not said: %+v", s.c.Looked())
				}
				s.now = right
				s.boot()
				s.publish("3", "three")
				days(right, 2)
				if u := s.update(content); u.State != Committed || s.inForce() != "7.1 with three" {
					t.Errorf("by the right clock: %s: %s: %s, told %q, %+v", s.inForce(), u.State, u.Reason, s.told, s.c.Looked())
				}
			})
		}
	}
}

// TestADelayByAWrongClock: how long a release was offered is counted by the time that is signed, where the clock is behind that.
func TestADelayByAWrongClock(t *testing.T) {
	t.Parallel()
	s := newSigned(t, false)
	s.cfg.Defer = 3 * day
	s.now = time.Unix(0, 0)
	s.boot()
	s.publish("1", "one")
	for d := range 6 {
		if d == 2 {
			s.now = s.repo.Now // set right
			s.boot()
		}
		for range 10 {
			s.step()
			s.now = s.now.Add(time.Minute)
		}
		if taken := s.inForce() == "7.1 with one"; taken != (d >= 3) {
			t.Errorf("day %d: %s, %s", d, s.inForce(), s.status(content).Waiting)
		}
		s.now = s.now.Add(day - 10*time.Minute)
		s.repo.Later(day)
		s.repo.Commit()
	}
}

// TestOneExpiryAlone: whatever has expired, what is in force goes on, nothing new gets a say, also not what had come in before, the reason is said, and
// with it signed anew all goes on.
func TestOneExpiryAlone(t *testing.T) {
	t.Parallel()
	for _, role := range []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS, content.Role()} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			s := newSigned(t, false)
			var looks []Look
			s.cfg.OnLook = func(l Look) { looks = append(looks, l) }
			s.boot()
			s.publish("1", "one")
			s.settle(content)
			s.publish("2", "two")
			if err := s.c.Pause(content); err != nil {
				t.Fatal(err)
			}
			s.until(content, Promote)
			expire := func(at time.Time) {
				signed := map[string]*time.Time{
					metadata.ROOT: &s.repo.Root.Signed.Expires, metadata.TIMESTAMP: &s.repo.Timestamp.Signed.Expires, metadata.SNAPSHOT: &s.repo.Snapshot.Signed.Expires,
				}[role]
				if signed == nil {
					signed = &s.repo.Roles[role].Signed.Expires
				}
				*signed = at
				if role == metadata.ROOT {
					s.repo.CommitRoot()
				}
				s.repo.Commit()
			}
			expire(s.now.Add(time.Minute))
			s.step()
			s.now = s.now.Add(2 * time.Hour) // more than the lease
			if err := s.c.Resume(content); err != nil {
				t.Fatal(err)
			}
			for range 30 {
				s.step()
				s.now = s.now.Add(time.Minute)
			}
			named := regexp.MustCompile(role + `(\.json)? is expired`)
			if role != content.Role() && (len(looks) == 0 || looks[len(looks)-1].Failed == 0 || !named.MatchString(looks[len(looks)-1].Problem)) {
				t.Errorf("the last look that was told of: %+v", looks)
			}
			said := s.c.Looked().Problem + s.status(content).Waiting
			if u := s.update(content); u.State != Promote || s.inForce() != "7.1 with one" || !strings.Contains(u.Reason, "expired") || !named.MatchString(said) {
				t.Fatalf("%s: %s %s: %s", s.inForce(), u.State, u.Reason, said)
			}
			expire(s.now.Add(day))
			s.now = s.now.Add(longestWait)
			if u := s.settle(content); u.State != Committed || s.inForce() != "7.1 with two" {
				t.Errorf("%s: %s %s", s.inForce(), u.State, u.Reason)
			}
		})
	}
}

// TestAShadowBeginsAnew: a release that ran beside the one in force when the agent ended, for longer than it may take to start, has that time again.
func TestAShadowBeginsAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, content)
	w.preinstall("7.1", "old")
	w.cfg.Shadow = time.Hour
	w.boot()
	w.offer(content, "1", map[string]string{"rules": "one"}, nil)
	w.until(content, Shadow)
	w.step()
	w.now = w.now.Add(10 * time.Minute)
	w.step()
	w.boot()
	w.host.slow = true
	for range 3 {
		w.step()
		w.now = w.now.Add(time.Second)
	}
	w.host.slow = false
	for w.update(content).State == Shadow {
		w.step()
		w.now = w.now.Add(time.Minute)
	}
	if u := w.settle(content); u.State != Committed {
		t.Errorf("%s: %s", u.State, u.Reason)
	}
}
