package publish

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"

	"bailey/internal/durable"
	"bailey/internal/sealedkey"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Signer signs with one key. The key may be in a file, in a hardware module or in somebody's cloud: nothing here asks where. It must be safe for
// concurrent use.
type Signer interface {
	// Public returns the public half: ed25519.PublicKey, *ecdsa.PublicKey or *rsa.PublicKey.
	Public() crypto.PublicKey
	// Sign returns the signature of a whole message: ed25519 of it, ECDSA in ASN.1 of its SHA-256 (SHA-384 for P-384), or RSASSA-PSS of
	// its SHA-256.
	Sign(ctx context.Context, message []byte) ([]byte, error)
}

// KeyID names a key in the files of a repository.
type KeyID string

// Short is enough of it for people.
func (id KeyID) Short() string { return string(id[:min(len(id), 12)]) }

// Public is a public key as a repository lists it.
type Public struct {
	ID  KeyID
	key *metadata.Key
}

// PublicOf returns the public half of a key as a repository lists it.
func PublicOf(key crypto.PublicKey) (Public, error) {
	k, err := metadata.KeyFromPublicKey(key)
	if err != nil {
		return Public{}, fmt.Errorf("use a key: %w", err)
	}
	id, err := k.ID()
	if err != nil {
		return Public{}, fmt.Errorf("use a key: %w", err)
	}
	return Public{ID: KeyID(id), key: k}, nil
}

// algorithm begins the line of a public key.
const algorithm = "ed25519 "

// ParsePublic reads a public key: the line that WriteKey writes, or a PEM block, for keys that are not in files.
func ParsePublic(text string) (Public, error) {
	text = strings.TrimSpace(text)
	if line, found := strings.CutPrefix(text, algorithm); found {
		b, err := hex.DecodeString(line)
		if err != nil || len(b) != ed25519.PublicKeySize {
			return Public{}, errors.New("it is no public key: after ed25519 there are 64 hexadecimal digits")
		}
		return PublicOf(ed25519.PublicKey(b))
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" || len(strings.TrimSpace(string(rest))) != 0 {
		return Public{}, errors.New("it is no public key: one is a line that begins with ed25519, or a PEM block PUBLIC KEY")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return Public{}, fmt.Errorf("read a public key: %w", err)
	}
	return PublicOf(key)
}

// PublicSuffix ends the name of the file with a key's public half.
const PublicSuffix = ".pub"

// kind names the file to whoever finds it.
const kind = "bailey repository key, private"

// WriteKey makes a key and writes it, sealed, to a new file, and its public half beside it.
func WriteKey(path string, passphrase []byte) (Public, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Public{}, fmt.Errorf("make a key: %w", err)
	}
	line := algorithm + hex.EncodeToString(public)
	text, err := sealedkey.Seal(kind, line, private.Seed(), passphrase)
	if err != nil {
		return Public{}, err
	}
	if err := durable.Create(path, text, 0o600); err != nil {
		return Public{}, fmt.Errorf("write a repository's key: %w", err)
	}
	if err := durable.Create(path+PublicSuffix, []byte(line+"\n"), 0o644); err != nil {
		return Public{}, fmt.Errorf("write a repository's key: %w", err)
	}
	return PublicOf(public)
}

// Passphrase returns the passphrase for a key's file.
type Passphrase func(ctx context.Context, path string) ([]byte, error)

// FileSigner signs with a key in a sealed file, which is opened when it first signs. It is safe for concurrent use.
type FileSigner struct {
	path   string
	sealed *sealedkey.Sealed
	public ed25519.PublicKey
	ask    Passphrase

	mu      sync.Mutex
	private ed25519.PrivateKey
}

var _ Signer = (*FileSigner)(nil)

// OpenKey reads the file of a key, up to its seal.
func OpenKey(path string, ask Passphrase) (*FileSigner, error) {
	text, err := sealedkey.Read(path)
	if err != nil {
		return nil, fmt.Errorf("read a repository's key: %w", err)
	}
	s, err := sealedkey.Parse(text, kind)
	if errors.Is(err, sealedkey.ErrKind) {
		err = errors.New("it is no private key of a repository")
	}
	if err != nil {
		return nil, fmt.Errorf("read a repository's key %s: %w", path, err)
	}
	hexed, _ := strings.CutPrefix(s.Public, algorithm)
	public, err := hex.DecodeString(hexed)
	if err != nil || len(public) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("read a repository's key %s: its public half is not readable", path)
	}
	return &FileSigner{path: path, sealed: s, public: public, ask: ask}, nil
}

// Public returns the public half.
func (s *FileSigner) Public() crypto.PublicKey { return s.public }

// Sign signs a message.
func (s *FileSigner) Sign(ctx context.Context, message []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.private == nil {
		if err := s.open(ctx); err != nil {
			return nil, fmt.Errorf("open %s: %w", s.path, err)
		}
	}
	return ed25519.Sign(s.private, message), nil
}

func (s *FileSigner) open(ctx context.Context) error {
	passphrase, err := s.ask(ctx, s.path)
	if err != nil {
		return err
	}
	seed, err := s.sealed.Open(passphrase)
	if err != nil {
		return err
	}
	if len(seed) != ed25519.SeedSize {
		return sealedkey.ErrPassphrase
	}
	key := ed25519.NewKeyFromSeed(seed)
	if !s.public.Equal(key.Public()) {
		return errors.New("the private key is not that of the public key beside it")
	}
	s.private = key
	return nil
}
