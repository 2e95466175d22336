package sealedkey_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"bailey/internal/sealedkey"
)

const kind = "a key of the tests"

func TestSealAndOpen(t *testing.T) {
	t.Parallel()
	secret, passphrase := []byte("thirty-two bytes of some secret!"), []byte("correct horse battery")
	text, err := sealedkey.Seal(kind, "public half", secret, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, secret) {
		t.Error("the secret is in the file")
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := sealedkey.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sealedkey.Parse(read, kind)
	if err != nil || s.Public != "public half" {
		t.Fatalf("%+v, %v", s, err)
	}
	if got, err := s.Open(passphrase); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := s.Open([]byte("incorrect horse battery")); !errors.Is(err, sealedkey.ErrPassphrase) {
		t.Errorf("another passphrase: %v", err)
	}
	// What is readable is under the seal too.
	s, err = sealedkey.Parse(bytes.Replace(text, []byte("public half"), []byte("public h4lf"), 1), kind)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(passphrase); !errors.Is(err, sealedkey.ErrPassphrase) {
		t.Errorf("with another public half: %v", err)
	}
	if _, err := sealedkey.Parse(text, "a key of others"); !errors.Is(err, sealedkey.ErrKind) {
		t.Errorf("as a key of another kind: %v", err)
	}
	if _, err := sealedkey.Seal(kind, "", secret, []byte("short")); err == nil {
		t.Error("a short passphrase is taken")
	}
}

func TestReadIsBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, make([]byte, sealedkey.MaxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sealedkey.Read(path); err == nil {
		t.Error("a large file is read")
	}
}
