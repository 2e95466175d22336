// Package operatorkey reads and writes the two halves of an operator's key: the line that agents trust, and the file that only
// the operator has, sealed with a passphrase. It signs nothing and decides about no token.
//
// Invariant: the private key is on a disk only sealed, and no file is ever overwritten.
package operatorkey

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"bailey/agent/unlock/token"
)

// PublicPrefix begins the line of every public key.
const PublicPrefix = "baileykey1"

const (
	publicSum  = 3 // 32 bytes and 3 are 56 characters of base32 with no bit left over
	publicText = len(PublicPrefix) + (ed25519.PublicKeySize+publicSum)*8/5
	maxName    = 64
)

// Public is an operator's public key with the name that it is shown by.
type Public struct {
	Key  ed25519.PublicKey
	Name string // may be empty
}

// ID returns what tokens name the key by.
func (p Public) ID() token.KeyID { return token.IDOf(p.Key) }

// String returns the line: the key, and its name if it has one.
func (p Public) String() string {
	b := append([]byte(publicLabel), p.Key...)
	sum := sha256.Sum256(b)
	text := PublicPrefix + encoding().EncodeToString(append(append([]byte{}, p.Key...), sum[:publicSum]...))
	if p.Name != "" {
		text += " " + p.Name
	}
	return text
}

// publicLabel is what the check sum begins with: a key's is no other text's.
const publicLabel = "bailey operator key 1\n"

func encoding() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// ParsePublic reads the line that String writes, and nothing else.
func ParsePublic(line string) (Public, error) {
	text, name, _ := strings.Cut(line, " ")
	rest, found := strings.CutPrefix(text, PublicPrefix)
	if !found || len(text) != publicText {
		return Public{}, fmt.Errorf("%q is no operator's key: one is %s and %d characters, as `bailey operator keygen` prints it", short(line), PublicPrefix, publicText-len(PublicPrefix))
	}
	b, err := encoding().DecodeString(rest)
	if err != nil || len(b) != ed25519.PublicKeySize+publicSum {
		return Public{}, fmt.Errorf("%q is no operator's key: it has a character that no key has", short(line))
	}
	p := Public{Key: ed25519.PublicKey(b[:ed25519.PublicKeySize]), Name: name}
	if err := CheckName(name); err != nil {
		return Public{}, err
	}
	if p.String() != line {
		return Public{}, fmt.Errorf("%q is no operator's key: it was changed in copying", short(line))
	}
	return p, nil
}

// CheckName refuses names that could not be shown or read back.
func CheckName(name string) error {
	switch {
	case len(name) > maxName:
		return fmt.Errorf("a key's name has %d bytes, and at most %d are kept", len(name), maxName)
	case name != strings.TrimSpace(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("a key's name has only characters that can be shown, and no space at its ends")
	}
	return nil
}

// short bounds what an error repeats.
func short(s string) string {
	if len(s) > 32 {
		return s[:32] + "…"
	}
	return s
}
