package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"bailey/agent/config"
	"bailey/agent/control"
	"bailey/agent/health"
	"bailey/agent/journal"
	"bailey/agent/unlock/operatorkey"
	"bailey/agent/unlock/token"
	"bailey/internal/boottime"
)

// doorGuard is a guard in memory.
type doorGuard struct {
	scope []string
	until uint64
}

func (g *doorGuard) Unlock(scope []string, until uint64) error {
	g.scope, g.until = scope, until
	return nil
}

func (g *doorGuard) Relock() error { g.scope = nil; return nil }

func (g *doorGuard) Locked() bool { return g.scope == nil }

// doorAgent is as much of an agent as its door needs, with the journal running. The second result ends it and reads the journal.
func doorAgent(t *testing.T, g *doorGuard, keys ...string) (*Agent, func() []journal.Line) {
	t.Helper()
	cfg := config.Default()
	cfg.Agent.State, cfg.Operator = t.TempDir(), config.Operator{Keys: keys}
	a := &Agent{cfg: cfg, log: slog.New(slog.DiscardHandler), health: health.NewRegistry(), bootID: "this", guarded: make(chan struct{})}
	close(a.guarded)
	a.ledger = newLedger(a)
	if g != nil {
		a.lock = g
	}
	if err := errors.Join(a.newJournal(), a.readCommandLine(), a.newDoor()); err != nil {
		t.Fatal(err)
	}
	if a.guardOff {
		t.Skip("this machine was booted with " + GuardOff)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.journal.Run(ctx) }()
	return a, func() []journal.Line {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		var out []journal.Line
		err := journal.NewReader(journalDir(cfg)).Read(func(l *journal.Line, _ []byte) error { out = append(out, *l); return nil }, func(f journal.Fault) { t.Error(f) })
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

func operatorKey(t *testing.T) (ed25519.PrivateKey, string) {
	t.Helper()
	seed := sha256.Sum256([]byte("door"))
	key := ed25519.NewKeyFromSeed(seed[:])
	return key, operatorkey.Public{Key: key.Public().(ed25519.PublicKey), Name: "alice"}.String()
}

// TestDoorOfTheAgent: from the configuration's key to the guard, the journal and the health registry.
func TestDoorOfTheAgent(t *testing.T) {
	t.Parallel()
	key, line := operatorKey(t)
	g := &doorGuard{}
	a, end := doorAgent(t, g, line)
	tok, err := token.Issue(token.Grant{Scopes: token.Stop, Issued: time.Now(), For: time.Minute}, key)
	if err != nil {
		t.Fatal(err)
	}
	m, err := (*door)(a).Unlock(t.Context(), tok.Text())
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Duration(g.until - boottime.Now()); m.GetLocked() || m.GetOperator() != "alice" || left > time.Minute || left < 50*time.Second {
		t.Errorf("got %v, %v left", m, left)
	}
	_, err = (*door)(a).Unlock(t.Context(), tok.Text())
	var f *control.Fault
	if !errors.As(err, &f) || f.Class != control.Refused || f.Hint == "" {
		t.Errorf("the second time: %#v", err)
	}
	if _, err = (*door)(a).Unlock(t.Context(), "nonsense"); !errors.As(err, &f) || f.Class != control.Invalid {
		t.Errorf("nonsense: %#v", err)
	}
	if m, err := (*door)(a).Lock(t.Context()); err != nil || !m.GetLocked() {
		t.Errorf("lock: %v, %v", m, err)
	}
	var results []string
	for _, l := range end() {
		if l.Kind == journal.KindUnlock {
			var fields struct{ Result, Reason, Name string }
			if err := l.Decode(&fields); err != nil {
				t.Fatal(err)
			}
			results = append(results, strings.TrimSpace(fields.Result+" "+fields.Reason+" "+fields.Name))
		}
		if strings.Contains(string(l.Fields), tok.Text()) {
			t.Error("the journal has the token")
		}
	}
	if got, want := strings.Join(results, ", "), "accepted  alice, refused used alice, refused form, locked  alice"; got != want {
		t.Errorf("the journal has %q, want %q", got, want)
	}
}

// TestDoorWithoutGuard: an agent that has none says so.
func TestDoorWithoutGuard(t *testing.T) {
	t.Parallel()
	a, end := doorAgent(t, nil)
	if m := guardMessage(a.door.State()); m.GetActive() || m.GetReason() != "the agent is still starting" {
		t.Errorf("state: %v", m)
	}
	if _, err := (*door)(a).Unlock(t.Context(), "anything"); err == nil || !strings.Contains(err.Error(), "no guard is active") {
		t.Errorf("unlock: %v", err)
	}
	a.guardOff = true // as if booted with it
	a.noteGuardOff()
	lines := end()
	if n := len(lines); n == 0 || lines[n-1].Kind != journal.KindUnlock || !strings.Contains(string(lines[n-1].Fields), GuardOff) {
		t.Errorf("a boot without the guard is not written down: %v", lines)
	}
}

// TestPermit: while the guard is locked, the agent is not replaced, and products are not changed where the operator has said so.
func TestPermit(t *testing.T) {
	t.Parallel()
	key, line := operatorKey(t)
	for _, tc := range []struct {
		guard, seal bool
		scope       token.Scopes
		method      string
		want        bool
	}{
		{guard: false, seal: true, method: "AgentUpgrade", want: true},
		{guard: false, seal: true, method: "ProductStop", want: true},
		{guard: true, method: "AgentUpgrade", want: false},
		{guard: true, method: "ProductStop", want: true},
		{guard: true, seal: true, method: "ProductStop", want: false},
		{guard: true, seal: true, method: "BrakeRelease", want: false},
		{guard: true, seal: true, method: "CacheClear", want: true},
		{guard: true, seal: true, method: "Unlock", want: true},
		{guard: true, seal: true, method: "Lock", want: true},
		{guard: true, seal: true, scope: token.State, method: "ProductStop", want: true},
		{guard: true, seal: true, scope: token.State, method: "AgentUpgrade", want: false},
		{guard: true, scope: token.Upgrade, method: "AgentUpgrade", want: true},
	} {
		var g *doorGuard
		if tc.guard {
			g = &doorGuard{}
		}
		a, end := doorAgent(t, g, line)
		a.cfg.Operator.Seal = tc.seal
		if tc.scope != 0 {
			tok, err := token.Issue(token.Grant{Scopes: tc.scope, Issued: time.Now(), For: time.Minute}, key)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := (*door)(a).Unlock(t.Context(), tok.Text()); err != nil {
				t.Fatal(err)
			}
		}
		if got := a.permit(tc.method) == nil; got != tc.want {
			t.Errorf("%+v: got %v", tc, got)
		}
		end()
	}
}
