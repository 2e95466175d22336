// Package sealedkey keeps a private key in a file that only its passphrase opens: argon2id makes the key of an AES-256-GCM seal, which
// also covers what is readable beside it. It does not know what the key signs.
//
// Invariant: the secret is on a disk only sealed, and no file is ever overwritten.
package sealedkey

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/crypto/argon2"
)

// MinPassphrase is the shortest passphrase that a new key is sealed with, in bytes.
const MinPassphrase = 12

// MaxFile bounds the file of a private key.
const MaxFile = 8 << 10

// cost is what each try at a passphrase takes.
type cost struct {
	Time    uint32 `json:"time"`
	Memory  uint32 `json:"memory_kib"`
	Threads uint8  `json:"threads"`
}

// usual takes about half a second on a laptop and fits a small virtual machine. RFC 9106 recommends 64 MiB and three rounds where
// memory is short; this is twice of both. check bounds what a file may ask for before the passphrase is known.
func usual() cost { return cost{Time: 6, Memory: 128 << 10, Threads: 4} }

func (c cost) check() error {
	if c.Time < 1 || c.Time > 64 || c.Memory < 8<<10 || c.Memory > 1<<20 || c.Threads < 1 || c.Threads > 16 {
		return fmt.Errorf("its passphrase would cost time %d, memory %d KiB, threads %d, which is not what this program writes", c.Time, c.Memory, c.Threads)
	}
	return nil
}

// file is a sealed private key, with everything but the passphrase that is needed to open it.
type file struct {
	Kind    string `json:"kind"`
	Version int    `json:"version"`
	Public  string `json:"public"` // what the owner knows the public key by
	KDF     string `json:"kdf"`    // argon2id
	Cost    cost   `json:"cost"`
	Salt    []byte `json:"salt"`
	Cipher  string `json:"cipher"` // aes-256-gcm, whose additional data are the fields above
	Nonce   []byte `json:"nonce"`
	Sealed  []byte `json:"sealed"`
}

const (
	fileVersion = 1
	kdfName     = "argon2id"
	cipherName  = "aes-256-gcm"
	saltSize    = 16
)

// ErrPassphrase says that the passphrase is not the key's.
var ErrPassphrase = errors.New("the passphrase is wrong")

// ErrKind says that a file is no private key of the kind that was asked for.
var ErrKind = errors.New("it is no such key")

// Seal returns the content of a private key's file. Kind names the file to whoever finds it, and public is the key's other half as text.
func Seal(kind, public string, secret, passphrase []byte) ([]byte, error) {
	if len(passphrase) < MinPassphrase {
		return nil, fmt.Errorf("the passphrase has %d bytes, and at least %d are asked for: several words are best", len(passphrase), MinPassphrase)
	}
	f := file{Kind: kind, Version: fileVersion, Public: public, KDF: kdfName, Cost: usual(), Cipher: cipherName, Salt: make([]byte, saltSize)}
	if _, err := rand.Read(f.Salt); err != nil {
		return nil, fmt.Errorf("seal the key: %w", err)
	}
	box, err := f.box(passphrase)
	if err != nil {
		return nil, err
	}
	f.Nonce = make([]byte, box.NonceSize())
	if _, err := rand.Read(f.Nonce); err != nil {
		return nil, fmt.Errorf("seal the key: %w", err)
	}
	f.Sealed = box.Seal(nil, f.Nonce, secret, f.bound())
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("seal the key: %w", err)
	}
	return append(text, '\n'), nil
}

// box returns the cipher for a passphrase.
func (f *file) box(passphrase []byte) (cipher.AEAD, error) {
	key := argon2.IDKey(passphrase, f.Salt, f.Cost.Time, f.Cost.Memory, f.Cost.Threads, 32)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("seal the key: %w", err)
	}
	return cipher.NewGCM(block)
}

// bound is what the seal also covers: nobody can change it without the passphrase.
func (f *file) bound() []byte {
	return fmt.Appendf(nil, "%s\n%d\n%s\n%s\n%d %d %d\n%x\n%s\n", f.Kind, f.Version, f.Public, f.KDF, f.Cost.Time, f.Cost.Memory, f.Cost.Threads, f.Salt, f.Cipher)
}

// Sealed is a private key that waits for its passphrase.
type Sealed struct {
	Public string
	file   file
}

// Read reads the content of a file that may hold a sealed key.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > MaxFile {
		return nil, fmt.Errorf("it has more than %d bytes", MaxFile)
	}
	return text, nil
}

// Parse reads what Seal wrote, up to the seal. ErrKind means that it is something else.
func Parse(text []byte, kind string) (*Sealed, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("it has more than %d bytes", MaxFile)
	}
	var f file
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil || f.Kind != kind {
		return nil, ErrKind
	}
	if f.Version != fileVersion || f.KDF != kdfName || f.Cipher != cipherName || len(f.Salt) != saltSize || len(f.Nonce) != 12 {
		return nil, fmt.Errorf("it is sealed in a way that this version does not know (version %d, %q, %q)", f.Version, f.KDF, f.Cipher)
	}
	if err := f.Cost.check(); err != nil {
		return nil, err
	}
	return &Sealed{Public: f.Public, file: f}, nil
}

// Open returns the secret.
func (s *Sealed) Open(passphrase []byte) ([]byte, error) {
	box, err := s.file.box(passphrase)
	if err != nil {
		return nil, err
	}
	secret, err := box.Open(nil, s.file.Nonce, s.file.Sealed, s.file.bound())
	if err != nil {
		return nil, ErrPassphrase
	}
	return secret, nil
}
