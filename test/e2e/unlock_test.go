package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bailey/test/rig"
)

// TestUnlockWithoutAGuard: a real token of a key that the agent trusts, where nothing guards: it says so, and the journal has who tried
// and not the token.
func TestUnlockWithoutAGuard(t *testing.T) {
	keys := t.TempDir()
	config := "[operator]\nkey_dir = \"" + keys + "\"\n"
	a := startAgent(t, config)
	if g := a.Status().GetGuard(); g.GetActive() {
		t.Skip("this machine has a guard")
	} else if g.GetReason() == "" || g.GetHost() == "" {
		t.Errorf("status does not say why there is no guard, or who the machine is: %v", g)
	}
	token := signed(t, a, keys)
	out, err := a.Bailey("unlock", "--token", token)
	if err == nil || !strings.Contains(out, "no guard is active on this machine") {
		t.Errorf("unlock: %v\n%s", err, out)
	}
	if out, err := a.Bailey("lock"); err == nil || !strings.Contains(out, "no guard is active") {
		t.Errorf("lock: %v\n%s", err, out)
	}
	if g := a.Status().GetGuard(); len(g.GetKeys()) != 1 || !strings.HasPrefix(g.GetKeys()[0], "alice (key ") {
		t.Errorf("a key that was put there while the agent runs does not count: %v", g)
	}
	expectJournal(a, "who tried", operatorLine("Unlock", "asked"), operatorLine("Unlock", "refused"))
	if text := a.Must("journal", "show", "--json", "--state", a.State); strings.Contains(text, token) {
		t.Error("the journal has the token")
	}
}

// signed makes an operator's key, gives the agent its public half, and signs a token for this machine.
func signed(t *testing.T, a *rig.Agent, keys string) string {
	t.Helper()
	dir := t.TempDir()
	key, passphrase := filepath.Join(dir, "alice.key"), filepath.Join(dir, "passphrase")
	if err := os.WriteFile(passphrase, []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.Must("operator", "keygen", "--out", key, "--name", "alice", "--passphrase-file", passphrase)
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(keys, "alice.pub"), public, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := a.Command("operator", "sign", "--key", key, "--passphrase-file", passphrase, "--host-id", strings.TrimSpace(a.Must("operator", "host")), "--scope", "stop")
	cmd.Stderr = nil
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("sign: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}
