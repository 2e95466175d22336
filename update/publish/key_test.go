package publish_test

import (
	"context"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bailey/update/publish"
)

func TestKeyFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "root.key")
	public, err := publish.WriteKey(path, []byte("correct horse battery"))
	if err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(path + publish.PublicSuffix)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := publish.ParsePublic(string(line)); err != nil || got.ID != public.ID {
		t.Errorf("%v, %v", got, err)
	}
	asked := 0
	passphrase := "correct horse batterz"
	s, err := publish.OpenKey(path, func(context.Context, string) ([]byte, error) { asked++; return []byte(passphrase), nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sign(t.Context(), []byte("x")); err == nil {
		t.Error("it signs with another passphrase")
	}
	passphrase = "correct horse battery"
	for range 2 {
		sig, err := s.Sign(t.Context(), []byte("x"))
		if err != nil || !ed25519.Verify(s.Public().(ed25519.PublicKey), []byte("x"), sig) {
			t.Errorf("%x, %v", sig, err)
		}
	}
	if asked != 2 {
		t.Errorf("asked for the passphrase %d times", asked)
	}
	if _, err := publish.WriteKey(path, []byte("correct horse battery")); err == nil {
		t.Error("a key is written over another")
	}
	if _, err := publish.OpenKey(path+publish.PublicSuffix, nil); err == nil {
		t.Error("a public key signs")
	}
}

// FuzzParsePublic: no panic, and what is accepted has a name.
func FuzzParsePublic(f *testing.F) {
	f.Add("ed25519 " + strings.Repeat("ab", 32))
	f.Add("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := publish.ParsePublic(text); err == nil && len(p.ID) != 64 {
			t.Fatalf("%q: %+v", text, p)
		}
	})
}
