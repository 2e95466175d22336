package rules

import (
	"errors"
	"os"
	"testing"

	"bailey/agent/event"
	"bailey/agent/health"
)

// TestUnsupported: where the kernel cannot, the operator hears it with a remedy as soon as a product may have rules, and the product
// when it asks.
func TestUnsupported(t *testing.T) {
	t.Parallel()
	registry := health.NewRegistry()
	r, err := New(Config{
		Pins:     t.TempDir() + "/pins", // in no bpffs
		Critical: func(*event.File) bool { return false }, CriticalBelow: func(string) (string, bool) { return "", false }, Health: registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.SetGrants(everything())
	path := t.TempDir() + "/file"
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Install(rule("a", Exec, Match{File: path})); !errors.Is(err, ErrUnsupported) {
		t.Errorf("before it is this agent's turn: %v", err)
	}
	if len(registry.List()) != 0 {
		t.Errorf("it was tried before it is this agent's turn: %+v", registry.List())
	}
	r.TakeOver()
	entries := registry.List()
	if len(entries) != 1 || entries[0].Component != Component || entries[0].Status != health.Degraded || entries[0].Remedy == "" {
		t.Errorf("health %+v", entries)
	}
	if _, err := r.Install(rule("a", Exec, Match{File: path})); !errors.Is(err, ErrUnsupported) {
		t.Errorf("install: %v", err)
	}
	if _, err := r.Install(Rule{Product: "nobody", ID: "a", Action: Exec, Match: Match{File: path}, Lease: 1 << 40}); !errors.Is(err, ErrNotGranted) {
		t.Errorf("install without a grant: %v", err)
	}
	if err := r.Remove("acme", "a", ""); !errors.Is(err, ErrUnknown) {
		t.Errorf("remove: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
