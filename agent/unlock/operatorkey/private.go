package operatorkey

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"bailey/internal/durable"
	"bailey/internal/sealedkey"
)

// MinPassphrase is the shortest passphrase that a new key is sealed with, in bytes.
const MinPassphrase = sealedkey.MinPassphrase

// kind names the file to whoever finds it.
const kind = "bailey operator key, private"

// ErrPassphrase says that the passphrase is not the key's.
var ErrPassphrase = sealedkey.ErrPassphrase

// Generate makes a key.
func Generate(name string) (Public, ed25519.PrivateKey, error) {
	if err := CheckName(name); err != nil {
		return Public{}, nil, err
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Public{}, nil, fmt.Errorf("make a key: %w", err)
	}
	return Public{Key: public, Name: name}, private, nil
}

// Seal returns the content of a private key's file: the seed of RFC 8032, sealed.
func Seal(p Public, private ed25519.PrivateKey, passphrase []byte) ([]byte, error) {
	return sealedkey.Seal(kind, p.String(), private.Seed(), passphrase)
}

// Sealed is a private key that waits for its passphrase.
type Sealed struct {
	Public Public
	sealed *sealedkey.Sealed
}

// ReadSealed reads the file of a private key, up to its seal.
func ReadSealed(path string) (*Sealed, error) {
	text, err := sealedkey.Read(path)
	if err != nil {
		return nil, fmt.Errorf("read the operator's key: %w", err)
	}
	s, err := parseSealed(text)
	if err != nil {
		return nil, fmt.Errorf("read the operator's key %s: %w", path, err)
	}
	return s, nil
}

func parseSealed(text []byte) (*Sealed, error) {
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte(PublicPrefix)) {
		return nil, errors.New("this is a public key: tokens are signed with the file that `bailey operator keygen` wrote beside it, whose name has no .pub")
	}
	s, err := sealedkey.Parse(text, kind)
	if errors.Is(err, sealedkey.ErrKind) {
		return nil, errors.New("it is no private key of an operator")
	}
	if err != nil {
		return nil, err
	}
	p, err := ParsePublic(s.Public)
	if err != nil {
		return nil, err
	}
	return &Sealed{Public: p, sealed: s}, nil
}

// Open returns the private key.
func (s *Sealed) Open(passphrase []byte) (ed25519.PrivateKey, error) {
	seed, err := s.sealed.Open(passphrase)
	if err != nil {
		return nil, err
	}
	if len(seed) != ed25519.SeedSize {
		return nil, ErrPassphrase
	}
	key := ed25519.NewKeyFromSeed(seed)
	if !s.Public.Key.Equal(key.Public()) {
		return nil, errors.New("the private key is not that of the public key beside it")
	}
	return key, nil
}

// Create writes content into a new file, and never over another one.
func Create(path string, content []byte, mode os.FileMode) error {
	if err := durable.Create(path, content, mode); err != nil {
		return fmt.Errorf("write the operator's key: %w", err)
	}
	return nil
}
