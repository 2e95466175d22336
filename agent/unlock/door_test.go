package unlock_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bailey/agent/health"
	"bailey/agent/unlock"
	"bailey/agent/unlock/operatorkey"
	"bailey/agent/unlock/token"

	"github.com/google/go-cmp/cmp"
)

// fakeGuard ends what is allowed by itself, as the real one does.
type fakeGuard struct {
	rig   *rig
	scope []string
	until uint64
	fails error
}

func (g *fakeGuard) Unlock(scope []string, until uint64) error {
	if g.fails != nil {
		return g.fails
	}
	// The promise of the package: it is written down before.
	if n := len(g.rig.lines); n == 0 && !g.rig.quiet {
		g.rig.t.Error("the guard is opened before the journal has a line")
	}
	g.scope, g.until = scope, until
	return nil
}

func (g *fakeGuard) Relock() error { g.scope, g.until = nil, 0; return nil }

func (g *fakeGuard) Locked() bool { return g.scope == nil || g.until <= g.rig.now() }

// rig is a machine with a door.
type rig struct {
	t      *testing.T
	state  string
	bootID string
	id     string // a digit of the machine's id
	boot   uint64
	began  time.Time // if set: the time since boot goes on from here by itself
	wall   time.Time
	sync   bool
	guard  *fakeGuard
	keys   operatorkey.Trusted
	lines  []map[string]any
	quiet  bool
	health *health.Registry
	door   *unlock.Door
}

func private(n byte) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte{n})
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(n byte, name string) operatorkey.Public {
	return operatorkey.Public{Key: private(n).Public().(ed25519.PublicKey), Name: name}
}

func hostOf(t *testing.T, digit string) token.Host {
	t.Helper()
	h, err := token.HostOf(strings.Repeat(digit, 32))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newRig(t *testing.T) *rig {
	r := &rig{t: t, state: t.TempDir(), bootID: "first", id: "1", boot: 1e12, wall: noon, sync: true, keys: operatorkey.Trusted{public(1, "alice")}}
	r.guard = &fakeGuard{rig: r}
	r.start()
	return r
}

// start makes the door of a new agent.
func (r *rig) start() {
	r.t.Helper()
	r.health = health.NewRegistry()
	note := func(f map[string]any) { r.lines = append(r.lines, f) }
	cfg := unlock.Config{
		State: r.state, BootID: r.bootID, Host: func() (token.Host, error) { return hostOf(r.t, r.id), nil },
		Keys: func() (operatorkey.Trusted, error) { return r.keys, nil },
		Note: note, Commit: func(f map[string]any) error { note(f); return nil }, Health: r.health, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return r.wall }, Boot: r.now, Synchronised: func() bool { return r.sync },
	}
	if r.guard != nil {
		cfg.Guard = r.guard
	} else {
		cfg.Absent = "this build has none"
	}
	d, err := unlock.New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.door = d
}

func (r *rig) now() uint64 {
	if r.began.IsZero() {
		return r.boot
	}
	return r.boot + uint64(time.Since(r.began))
}

// reboot starts another boot after some time.
func (r *rig) reboot(off time.Duration) {
	r.bootID += "+"
	r.boot, r.wall = 5e9, r.wall.Add(off)
	r.guard.scope, r.guard.until = nil, 0
	r.start()
}

// pass lets time pass on all clocks.
func (r *rig) pass(d time.Duration) { r.boot += uint64(d); r.wall = r.wall.Add(d) }

func (r *rig) grant() token.Grant {
	return token.Grant{Host: hostOf(r.t, "1"), Scopes: token.Stop | token.Upgrade, Issued: noon, For: 10 * time.Minute}
}

func (r *rig) token(change func(*token.Grant)) string { return r.signed(1, change) }

func (r *rig) signed(key byte, change func(*token.Grant)) string {
	r.t.Helper()
	g := r.grant()
	if change != nil {
		change(&g)
	}
	tok, err := token.Issue(g, private(key))
	if err != nil {
		r.t.Fatal(err)
	}
	return tok.Text()
}

func (r *rig) accepted(text string) unlock.State {
	r.t.Helper()
	s, err := r.door.Unlock(text)
	if err != nil {
		r.t.Fatalf("refused: %v", err)
	}
	if s.Locked || r.guard.Locked() {
		r.t.Fatal("accepted, and locked")
	}
	return s
}

func (r *rig) refused(text, reason string) string {
	r.t.Helper()
	was := r.guard.Locked()
	_, err := r.door.Unlock(text)
	var e *token.Error
	if !errors.As(err, &e) || e.Reason != reason || e.Hint() == "" {
		r.t.Fatalf("got %v (%#v), want a refusal for %q with a hint", err, err, reason)
	}
	if r.guard.Locked() != was {
		r.t.Fatal("a refused token moved the guard")
	}
	if r.last()["result"] != "refused" {
		r.t.Errorf("the journal has %v", r.last())
	}
	return err.Error() + ": " + e.Hint()
}

func (r *rig) last() map[string]any {
	if len(r.lines) == 0 {
		return nil
	}
	return r.lines[len(r.lines)-1]
}

func TestUnlock(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.pass(3 * time.Minute)
	s := r.accepted(r.token(nil))
	if want := r.boot + uint64(7*time.Minute); r.guard.until != want || s.Until != want {
		t.Errorf("open until %d, want %d", r.guard.until, want)
	}
	if diff := cmp.Diff([]string{"stop", "upgrade"}, r.guard.scope); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if s.Name != "alice" || s.Key != public(1, "").ID().String() || !s.Expires.Equal(noon.Add(10*time.Minute)) {
		t.Errorf("state: %+v", s)
	}
	l := r.last()
	if l["result"] != "accepted" || l["name"] != "alice" || l["token"] != s.Nonce || l["expires"] != "2026-03-01T12:10:00Z" {
		t.Errorf("journal: %v", l)
	}
	if e := r.entry(unlock.LockComponent); e.Status != health.Degraded || !strings.Contains(e.Summary, "by alice") || !strings.Contains(e.Remedy, "bailey lock") {
		t.Errorf("health: %+v", e)
	}
	if s, err := r.door.Lock(); err != nil || !s.Locked || s.Scopes != nil {
		t.Errorf("lock: %+v, %v", s, err)
	}
	if r.last()["result"] != "locked" || r.entry(unlock.LockComponent).Status != health.OK {
		t.Errorf("after the lock: %v, %+v", r.last(), r.entry(unlock.LockComponent))
	}
}

func (r *rig) entry(component string) health.Entry {
	i := slices.IndexFunc(r.health.List(), func(e health.Entry) bool { return e.Component == component })
	if i < 0 {
		return health.Entry{}
	}
	return r.health.List()[i]
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text   func(*rig) string
		reason string
		says   string
	}{
		"no_token":             {func(*rig) string { return "hello" }, "form", "bailey operator sign"},
		"unknown_key":          {func(r *rig) string { return r.signed(2, nil) }, "key", "alice"},
		"another_host":         {func(r *rig) string { return r.token(func(g *token.Grant) { g.Host = hostOf(t, "2") }) }, "host", "--host-id " + hostOf(t, "1").String()},
		"not_yet":              {func(r *rig) string { return r.token(func(g *token.Grant) { g.NotBefore = noon.Add(time.Hour) }) }, "time", "valid from 2026-03-01T13:00:00Z on"},
		"expired":              {func(r *rig) string { return r.token(func(g *token.Grant) { g.Issued = noon.Add(-time.Hour) }) }, "time", "expired at 2026-03-01T11:10:00Z"},
		"issued_in_the_future": {func(r *rig) string { return r.token(func(g *token.Grant) { g.Issued = noon.Add(time.Hour) }) }, "time", "correct the clock"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			if text := r.refused(tc.text(r), tc.reason); !strings.Contains(text, tc.says) {
				t.Errorf("%q does not say %q", text, tc.says)
			}
		})
	}
}

// TestForgedKey: a token that names a trusted key, with another key's signature.
func TestForgedKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	text := r.signed(2, nil)
	r.keys = operatorkey.Trusted{{Key: private(2).Public().(ed25519.PublicKey)}}
	r.accepted(text)
	r.keys = operatorkey.Trusted{public(1, "alice")}
	r.refused(text, "key")
}

func TestAnyHost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.accepted(r.token(func(g *token.Grant) { g.Host = token.Host{} }))
}

// TestOnce: a token counts once, also after a restart of the agent, a reboot, and whatever happens to the clocks.
func TestOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	text := r.token(func(g *token.Grant) { g.For = token.MaxWindow })
	r.accepted(text)
	r.refused(text, "used")
	r.start()
	r.refused(text, "used")
	r.reboot(time.Minute)
	r.refused(text, "used")
	r.wall = r.wall.Add(50 * 365 * 24 * time.Hour) // everything that was used has expired
	r.accepted(r.token(func(g *token.Grant) { g.Issued = r.wall }))
	r.wall = noon
	r.refused(text, "time") // the floor
	if err := os.WriteFile(filepath.Join(r.state, unlock.FileName), []byte(strings.ReplaceAll(r.file(), `"floor":`, `"floor":0,"ignored":`)), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.refused(r.token(nil), "record") // not what was written: nothing is known
}

func (r *rig) file() string {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.state, unlock.FileName))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

// TestRevocation: a key that is removed counts no more, without a restart.
func TestRevocation(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.keys = append(r.keys, public(2, "bob"))
	r.accepted(r.signed(2, nil))
	r.keys = r.keys[:1]
	if text := r.refused(r.signed(2, nil), "key"); !strings.Contains(text, "alice") {
		t.Errorf("%q does not name the keys that count", text)
	}
	r.accepted(r.signed(1, nil))
}

// TestClockSetBack: a token does not become valid again when the wall clock is set back, in this boot or the next.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	expired := r.token(nil)
	r.pass(time.Hour)
	r.accepted(r.token(func(g *token.Grant) { g.Issued = r.wall })) // the floor is now an hour later
	r.wall, r.sync = noon, false
	if text := r.refused(expired, "time"); !strings.Contains(text, "later times were known here before") {
		t.Errorf("%q does not say why", text)
	}
	r.pass(30 * time.Minute) // the floor goes on with the time since boot
	r.refused(r.token(func(g *token.Grant) { g.Issued = noon.Add(65 * time.Minute); g.For = time.Minute }), "time")
	r.reboot(0)
	r.wall = noon
	r.refused(expired, "time")
}

// TestClockBehind: a machine whose clock is wrong and that nobody synchronises believes what the key's owner signed.
func TestClockBehind(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.wall, r.sync = time.Date(1970, 1, 1, 0, 5, 0, 0, time.UTC), false
	r.accepted(r.token(nil))
	if want := r.boot + uint64(10*time.Minute); r.guard.until != want {
		t.Errorf("open until %d, want %d", r.guard.until, want)
	}
}

// TestClockAheadIsNoFloor: a clock that nobody vouches for is not believed for ever.
func TestClockAheadIsNoFloor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.wall, r.sync = noon.AddDate(10, 0, 0), false
	r.run(func() {})
	r.refused(r.token(nil), "time")
	r.wall, r.sync = noon, true
	r.accepted(r.token(nil))
}

// run runs the door for a moment.
func (r *rig) run(f func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.door.Run(ctx) }()
	f()
	cancel()
	if err := <-done; err != nil {
		r.t.Error(err)
	}
}

// TestExpires: the guard is closed when the time is over, by the time since boot alone.
func TestExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.began = time.Now()
		r.accepted(r.token(func(g *token.Grant) { g.For = 5 * time.Second }))
		r.wall = noon.Add(-time.Hour) // it does not help
		r.run(func() { time.Sleep(7 * time.Second) })
		if r.guard.scope != nil || r.last()["result"] != "expired" || r.entry(unlock.LockComponent).Status != health.OK {
			t.Errorf("guard %v, journal %v, health %+v", r.guard.scope, r.last(), r.entry(unlock.LockComponent))
		}
	})
}

// TestRestart: another agent in the same boot goes on with what is open; after a reboot nothing is.
func TestRestart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.accepted(r.token(nil))
	until := r.guard.until
	r.guard.scope, r.guard.until, r.quiet = nil, 0, true
	r.pass(time.Minute)
	r.start()
	r.run(func() {})
	if r.guard.until != until || r.door.State().Name != "alice" {
		t.Errorf("open until %d, want %d; %+v", r.guard.until, until, r.door.State())
	}
	r.reboot(time.Minute)
	r.run(func() {})
	if !r.guard.Locked() || !r.door.State().Locked {
		t.Error("it is open after a reboot")
	}
}

// TestAnotherMachineId: what is put over the file with the machine's id gives it no other name before a reboot, also not to another agent.
func TestAnotherMachineId(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.run(func() {})
	anothers := r.token(func(g *token.Grant) { g.Host = hostOf(t, "2") })
	r.id = "2"
	r.refused(anothers, "host")
	r.start()
	r.refused(anothers, "host")
	if r.door.State().Host != hostOf(t, "1").String() {
		t.Errorf("it is called %s", r.door.State().Host)
	}
	r.reboot(time.Minute)
	r.accepted(anothers)
}

func TestAllows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if r.door.Allows("stop") {
		t.Error("locked, and stop is allowed")
	}
	r.accepted(r.token(nil))
	for scope, want := range map[string]bool{"stop": true, "upgrade": true, "config": false} {
		if got := r.door.Allows(scope); got != want {
			t.Errorf("%s: got %v", scope, got)
		}
	}
	r.boot += uint64(time.Hour) // nobody has looked yet
	if r.door.Allows("stop") {
		t.Error("it is over, and stop is allowed")
	}
	r.guard = nil
	r.start()
	if !r.door.Allows("config") {
		t.Error("without a guard config is not allowed")
	}
}

func TestDiskRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := os.Mkdir(filepath.Join(r.state, unlock.FileName+".new"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := r.token(nil)
	r.refused(text, "record")
	if e := r.entry(unlock.TokensComponent); e.Status != health.Failed || e.Remedy == "" {
		t.Errorf("health: %+v", e)
	}
	if err := os.Remove(filepath.Join(r.state, unlock.FileName+".new")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	r.accepted(text) // it was not used up
	if e := r.entry(unlock.TokensComponent); e.Status != health.OK {
		t.Errorf("health: %+v", e)
	}
}

func TestGuardFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.guard.fails = errors.New("the map is gone")
	text := r.token(nil)
	if said := r.refused(text, "guard"); !strings.Contains(said, "the map is gone") {
		t.Errorf("%q does not say why", said)
	}
	if !r.door.State().Locked {
		t.Error("it says that it is open")
	}
	r.guard.fails = nil
	r.refused(text, "used")
}

// TestWithoutGuard: it says so, and does not pretend, and the token is not used up.
func TestWithoutGuard(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.guard
	r.guard = nil
	r.start()
	text := r.token(nil)
	_, err := r.door.Unlock(text)
	if err == nil || !strings.Contains(err.Error(), "no guard is active on this machine (this build has none)") {
		t.Errorf("got %v", err)
	}
	if _, err := r.door.Lock(); err == nil {
		t.Error("it says that it locked")
	}
	if s := r.door.State(); s.Active || s.Locked || s.Absent != "this build has none" || len(s.Keys) != 1 || s.Host == "" {
		t.Errorf("state: %+v", s)
	}
	r.run(func() {})
	if len(r.lines) != 0 || len(r.health.List()) != 0 {
		t.Errorf("journal %v, health %v", r.lines, r.health.List())
	}
	if _, err := os.Stat(filepath.Join(r.state, unlock.FileName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it writes: %v", err)
	}
	r.guard = g
	r.start()
	r.accepted(text)
}

func TestNoKeysIsSaid(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.keys = nil
	r.run(func() {})
	if e := r.entry(unlock.KeysComponent); e.Status != health.Degraded || !strings.Contains(e.Remedy, "bailey operator keygen") {
		t.Errorf("health: %+v", e)
	}
}
