// Package token is the text with which an operator allows one machine to do for a while what the guard refuses otherwise: stop
// the agent, replace its files, change its configuration. It makes, reads and checks tokens; it keeps nothing, reads no clock
// and does not know whether a token was used before.
//
// Invariant: a token has exactly one text. What Parse accepts, Text writes again byte by byte; every bit of it is signed or
// checked, and there is no room for a field that this version does not know.
//
// # The text
//
// Prefix, then the lower-case base32 (RFC 4648, without padding) of 140 bytes, so that it is one word of 236 letters and digits:
// a double click selects it, no shell or chat changes it, and it has no case to lose. Numbers are big-endian:
//
//	 0   4  version, 1
//	 4  16  host: what it is for (Host); zeros name every host
//	20   4  scopes, one bit each
//	24   8  issued, 32  8  not before, 40  8  expires: seconds since the epoch
//	48  16  nonce
//	64   8  key: the first bytes of the SHA-256 of the operator's public key
//	72  64  Ed25519 signature (RFC 8032) of signedPrefix and bytes 0 to 71
//	136  4  the first bytes of the SHA-256 of bytes 0 to 135: tells a slip in copying from a forgery
package token

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Prefix begins every token's text. The digit is the version of what follows.
const Prefix = "baileytoken1"

// signedPrefix keeps a signature made for a token from meaning anything elsewhere.
const signedPrefix = "bailey operator token 1\n"

const (
	version    = 1
	bodySize   = 72
	sumSize    = 4
	size       = bodySize + ed25519.SignatureSize + sumSize
	textLength = len(Prefix) + size*8/5 // 140 bytes are 28 groups of five: no bit is left over
)

// MaxWindow bounds how long a token can be valid, MaxAhead how long before that it can be made.
const (
	MaxWindow = 24 * time.Hour
	MaxAhead  = 31 * 24 * time.Hour
)

// maxTime is the last second that a token can name: the year 9999, as RFC 3339 has it.
const maxTime = 253402300799

// Token is one permission. Made by Issue or Parse.
type Token struct {
	Host      Host // zero: every machine that trusts the key
	Scopes    Scopes
	Issued    time.Time // whole seconds, as the two below
	NotBefore time.Time
	Expires   time.Time
	Nonce     Nonce
	Key       KeyID
	signature [ed25519.SignatureSize]byte
}

// Nonce is what no two tokens have in common.
type Nonce [16]byte

// String returns the nonce in lower-case hex.
func (n Nonce) String() string { return hex.EncodeToString(n[:]) }

// ParseNonce reads what String writes, and nothing else.
func ParseNonce(s string) (n Nonce, err error) { return n, parseHex(n[:], s) }

// KeyID names an operator's key.
type KeyID [8]byte

// IDOf returns the name of a public key.
func IDOf(public ed25519.PublicKey) (id KeyID) {
	sum := sha256.Sum256(public)
	copy(id[:], sum[:])
	return id
}

// String returns the id in lower-case hex.
func (k KeyID) String() string { return hex.EncodeToString(k[:]) }

// Error says what is wrong with a token and what to do about it.
type Error struct {
	Reason string // one word, for the journal: form, damaged, version, scope, time, key, signature, host, used, full, record, guard
	Text   string
	hint   string
}

// Error returns the sentence.
func (e *Error) Error() string { return e.Text }

// Hint says what the operator can do.
func (e *Error) Hint() string { return e.hint }

// Refuse returns an *Error.
func Refuse(reason, hint, format string, args ...any) error {
	return &Error{Reason: reason, Text: fmt.Sprintf(format, args...), hint: hint}
}

const (
	again    = "copy the whole line that `bailey operator sign` printed"
	newToken = "sign another one with `bailey operator sign`"
)

// Grant is what an operator wants to allow.
type Grant struct {
	Host      Host
	Scopes    Scopes
	Issued    time.Time
	NotBefore time.Time     // zero: at once
	For       time.Duration // how long, from NotBefore
}

// Issue signs a token for g.
func Issue(g Grant, key ed25519.PrivateKey) (*Token, error) {
	second := func(t time.Time) time.Time { return time.Unix(t.Unix(), 0).UTC() }
	t := &Token{Host: g.Host, Scopes: g.Scopes, Issued: second(g.Issued), Key: IDOf(key.Public().(ed25519.PublicKey))}
	t.NotBefore = t.Issued
	if !g.NotBefore.IsZero() {
		t.NotBefore = second(g.NotBefore)
	}
	t.Expires = second(t.NotBefore.Add(g.For))
	if err := t.check(); err != nil {
		return nil, err
	}
	if _, err := rand.Read(t.Nonce[:]); err != nil {
		return nil, fmt.Errorf("make the token's nonce: %w", err)
	}
	copy(t.signature[:], ed25519.Sign(key, t.signed()))
	return t, nil
}

// check tests everything that needs neither a key nor a clock.
func (t *Token) check() error {
	for _, at := range []time.Time{t.Issued, t.NotBefore, t.Expires} {
		if s := at.Unix(); s <= 0 || s > maxTime {
			return Refuse("time", "look at the clock of the machine that signs", "the token has a time outside the years 1970 to 9999")
		}
	}
	switch window := t.Expires.Sub(t.NotBefore); {
	case t.Scopes == 0:
		return Refuse("scope", "name what it is to allow: "+AllScopes.String(), "the token allows nothing")
	case t.Scopes&^AllScopes != 0:
		return Refuse("scope", "upgrade Bailey here, or sign a token for "+AllScopes.String(), "the token has a scope that this version does not know")
	case window <= 0:
		return Refuse("time", newToken+", with --for 10m", "the token ends before it begins")
	case window > MaxWindow:
		return Refuse("time", "sign one for a shorter time", "the token is valid for %v, and at most %v is accepted", window, MaxWindow)
	case t.NotBefore.Before(t.Issued):
		return Refuse("time", "give --not-before a time that is still to come", "the token begins before it was issued")
	case t.NotBefore.Sub(t.Issued) > MaxAhead:
		return Refuse("time", "sign it closer to when it is needed", "the token begins more than %v after it was issued", MaxAhead)
	}
	return nil
}

// body returns the bytes that say everything.
func (t *Token) body() []byte {
	b := make([]byte, 0, size)
	b = binary.BigEndian.AppendUint32(b, version)
	b = append(b, t.Host[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(t.Scopes))
	for _, at := range []time.Time{t.Issued, t.NotBefore, t.Expires} {
		b = binary.BigEndian.AppendUint64(b, uint64(at.Unix()))
	}
	b = append(b, t.Nonce[:]...)
	return append(b, t.Key[:]...)
}

func (t *Token) signed() []byte { return append([]byte(signedPrefix), t.body()...) }

// encoding is base32 as Text writes it.
func encoding() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// Text returns the token as one word.
func (t *Token) Text() string {
	b := append(t.body(), t.signature[:]...)
	sum := sha256.Sum256(b)
	return Prefix + encoding().EncodeToString(append(b, sum[:sumSize]...))
}

// Verify tests the signature.
func (t *Token) Verify(public ed25519.PublicKey) error {
	if IDOf(public) != t.Key || !ed25519.Verify(public, t.signed(), t.signature[:]) {
		return Refuse("signature", newToken, "the token's signature is not that of key %s", t.Key)
	}
	return nil
}

// Parse reads a token's text strictly: what Text writes, and nothing else. It does not test the signature.
func Parse(text string) (*Token, error) {
	rest, found := strings.CutPrefix(text, Prefix)
	switch {
	case text == "":
		return nil, Refuse("form", again, "there is no token")
	case !found && strings.HasPrefix(text, strings.TrimRight(Prefix, "0123456789")):
		return nil, Refuse("version", "upgrade Bailey here, or sign with the version of Bailey that runs here", "the token is of a version that this one does not read")
	case !found:
		return nil, Refuse("form", again, "this is no token: one begins with %s", Prefix)
	case len(text) != textLength:
		return nil, Refuse("damaged", again, "the token has %d characters, and all have %d: a part is missing or too much", len(text), textLength)
	}
	b, err := encoding().DecodeString(rest)
	if err != nil || len(b) != size {
		return nil, Refuse("damaged", again, "the token has a character that no token has")
	}
	if sum := sha256.Sum256(b[:size-sumSize]); string(sum[:sumSize]) != string(b[size-sumSize:]) {
		return nil, Refuse("damaged", again, "the token was changed in copying")
	}
	t, err := decode(b)
	if err != nil {
		return nil, err
	}
	if t.Text() != text { // base32 has characters that mean the same
		return nil, Refuse("damaged", again, "the token is not written as tokens are")
	}
	return t, nil
}

func decode(b []byte) (*Token, error) {
	if v := binary.BigEndian.Uint32(b); v != version {
		return nil, Refuse("version", "upgrade Bailey here, or sign with the version of Bailey that runs here", "the token is of version %d, and this one reads version %d", v, version)
	}
	t := &Token{Scopes: Scopes(binary.BigEndian.Uint32(b[20:]))}
	copy(t.Host[:], b[4:])
	for i, at := range []*time.Time{&t.Issued, &t.NotBefore, &t.Expires} {
		s := binary.BigEndian.Uint64(b[24+8*i:])
		if s > maxTime {
			return nil, Refuse("time", "look at the clock of the machine that signs", "the token has a time outside the years 1970 to 9999")
		}
		*at = time.Unix(int64(s), 0).UTC()
	}
	copy(t.Nonce[:], b[48:])
	copy(t.Key[:], b[64:])
	copy(t.signature[:], b[bodySize:])
	if err := t.check(); err != nil {
		return nil, err
	}
	return t, nil
}

// Clean takes out what copying puts between a token's characters: white space, also inside, and quotes around it.
func Clean(text string) string {
	return strings.Trim(strings.Join(strings.Fields(text), ""), "\"'`")
}

func parseHex(dst []byte, s string) error {
	if hex.DecodedLen(len(s)) != len(dst) || len(s)%2 != 0 {
		return fmt.Errorf("%q has %d characters, not %d", s, len(s), hex.EncodedLen(len(dst)))
	}
	if _, err := hex.Decode(dst, []byte(s)); err != nil || hex.EncodeToString(dst) != s {
		clear(dst)
		return errors.New("it is not lower-case hex")
	}
	return nil
}
