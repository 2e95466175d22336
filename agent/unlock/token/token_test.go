package token_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bailey/agent/unlock/token"

	"github.com/google/go-cmp/cmp"
)

// seeded is a key that is the same at every run.
func seeded(n byte) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte{n})
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

var issued = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func host(t testing.TB) token.Host {
	t.Helper()
	h, err := token.HostOf("0123456789abcdef0123456789abcdef\n")
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func issue(t testing.TB, g token.Grant) *token.Token {
	t.Helper()
	tok, err := token.Issue(g, seeded(1))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func grant(t testing.TB) token.Grant {
	return token.Grant{Host: host(t), Scopes: token.Stop | token.Upgrade, Issued: issued, For: 10 * time.Minute}
}

func TestTextAndBack(t *testing.T) {
	t.Parallel()
	for name, g := range map[string]token.Grant{
		"one_host":   grant(t),
		"every_host": {Scopes: token.AllScopes, Issued: issued, For: token.MaxWindow},
		"later":      {Host: host(t), Scopes: token.Config, Issued: issued, NotBefore: issued.Add(token.MaxAhead), For: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := issue(t, g)
			text := want.Text()
			if strings.ContainsFunc(text, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
				t.Errorf("%s is not one word of letters and digits", text)
			}
			got, err := token.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(token.Token{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if err := got.Verify(public(seeded(1))); err != nil {
				t.Error(err)
			}
			if err := got.Verify(public(seeded(2))); err == nil {
				t.Error("another key's signature is taken")
			}
		})
	}
}

func TestNoncesDiffer(t *testing.T) {
	t.Parallel()
	if a, b := issue(t, grant(t)), issue(t, grant(t)); a.Nonce == b.Nonce {
		t.Error("two tokens have one nonce")
	}
}

func TestIssueRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*token.Grant){
		"no_scope":         func(g *token.Grant) { g.Scopes = 0 },
		"unknown_scope":    func(g *token.Grant) { g.Scopes = 1 << 31 },
		"no_time":          func(g *token.Grant) { g.For = 0 },
		"too_long":         func(g *token.Grant) { g.For = token.MaxWindow + time.Second },
		"begins_in_past":   func(g *token.Grant) { g.NotBefore = issued.Add(-time.Second) },
		"begins_far_ahead": func(g *token.Grant) { g.NotBefore = issued.Add(token.MaxAhead + time.Second) },
		"no_clock":         func(g *token.Grant) { g.Issued = time.Time{} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := grant(t)
			change(&g)
			_, err := token.Issue(g, seeded(1))
			refused(t, err, "")
		})
	}
}

// refused checks that err is one that an operator can act on.
func refused(t *testing.T, err error, reason string) {
	t.Helper()
	var e *token.Error
	if !errors.As(err, &e) || e.Hint() == "" || reason != "" && e.Reason != reason {
		t.Errorf("got %#v, want a refusal for %q with a hint", err, reason)
	}
}

// resum writes the check sum of a changed body anew.
func resum(b []byte) string {
	sum := sha256.Sum256(b[:136])
	copy(b[136:], sum[:4])
	return token.Prefix + alphabet.EncodeToString(b)
}

var alphabet = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func raw(t testing.TB, text string) []byte {
	t.Helper()
	b, err := alphabet.DecodeString(strings.TrimPrefix(text, token.Prefix))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	text := issue(t, grant(t)).Text()
	with := func(at int, bytes ...byte) string {
		b := raw(t, text)
		copy(b[at:], bytes)
		return resum(b)
	}
	at := func(s time.Time) []byte { return binary.BigEndian.AppendUint64(nil, uint64(s.Unix())) }
	for name, tc := range map[string]struct{ text, reason string }{
		"empty":             {"", "form"},
		"something_else":    {"ssh-ed25519 AAAA", "form"},
		"later_format":      {"baileytoken2" + text[len(token.Prefix):], "version"},
		"cut":               {text[:len(text)-1], "damaged"},
		"longer":            {text + "a", "damaged"},
		"upper_case":        {token.Prefix + strings.ToUpper(text[len(token.Prefix):]), "damaged"},
		"space_inside":      {text[:50] + " " + text[50:], "damaged"},
		"line_end":          {text[:len(text)-1] + "\n", "damaged"},
		"one_letter":        {text[:60] + flip(text[60]) + text[61:], "damaged"},
		"digit_of_no_token": {text[:60] + "1" + text[61:], "damaged"},
		"later_version":     {with(0, 0, 0, 0, 2), "version"},
		"no_scope":          {with(20, 0, 0, 0, 0), "scope"},
		"unknown_scope":     {with(20, 0x80, 0, 0, 1), "scope"},
		"huge_time":         {with(24, 0xff, 0xff), "time"},
		"no_time":           {with(24, at(time.Unix(0, 0))...), "time"},
		"window_too_long":   {with(40, at(issued.Add(token.MaxWindow+time.Second))...), "time"},
		"ends_first":        {with(40, at(issued)...), "time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tok, err := token.Parse(tc.text)
			if err == nil {
				t.Fatalf("accepted as %+v", tok)
			}
			refused(t, err, tc.reason)
		})
	}
}

func flip(c byte) string {
	if c == 'a' {
		return "b"
	}
	return "a"
}

// TestEverySignedBitCounts flips each bit of what is signed, the signature included, with a right check sum.
func TestEverySignedBitCounts(t *testing.T) {
	t.Parallel()
	text := issue(t, grant(t)).Text()
	for i := range 136 * 8 {
		b := raw(t, text)
		b[i/8] ^= 1 << (i % 8)
		tok, err := token.Parse(resum(b))
		if err != nil {
			continue
		}
		if tok.Verify(public(seeded(1))) == nil {
			t.Errorf("bit %d is not signed", i)
		}
	}
}

// TestFormatIsKept: tokens are signed on one machine and read on another, of another version.
func TestFormatIsKept(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("testdata", "kept.txt"))
	if err != nil {
		t.Fatal(err)
	}
	tok, err := token.Parse(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := tok.Verify(public(seeded(1))); err != nil {
		t.Error(err)
	}
	got := []string{tok.Host.String(), tok.Scopes.String(), tok.Issued.Format(time.RFC3339), tok.NotBefore.Format(time.RFC3339), tok.Expires.Format(time.RFC3339), tok.Key.String()}
	want := []string{"425e9035a4f0c534db894ac99b5abf2f", "stop,upgrade", "2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z", "2026-03-01T12:10:00Z", "63d771218209d8bd"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	text := issue(t, grant(t)).Text()
	for name, s := range map[string]string{
		"as_it_is": text, "wrapped": "  " + text[:78] + "\r\n\t" + text[78:] + "\n", "quoted": "\"" + text + "\"\n",
	} {
		if got := token.Clean(s); got != text {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	h := host(t)
	again, err := token.ParseHost(h.String())
	if err != nil || again != h {
		t.Errorf("got %v, %v", again, err)
	}
	for _, bad := range []string{"", "*", "0123", strings.ToUpper(h.String()), strings.Repeat("0", 32), strings.Repeat("g", 32)} {
		if _, err := token.ParseHost(bad); err == nil {
			t.Errorf("host %q is accepted", bad)
		}
	}
	for _, bad := range []string{"", "uninitialized", strings.Repeat("0", 32), "0123456789ABCDEF0123456789ABCDEF"} {
		if _, err := token.HostOf(bad); err == nil {
			t.Errorf("machine id %q is accepted", bad)
		}
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	s, err := token.ParseScopes([]string{"upgrade", "stop"})
	if err != nil || s != token.Stop|token.Upgrade || s.String() != "stop,upgrade" {
		t.Errorf("got %v, %v", s, err)
	}
	for _, bad := range [][]string{{"halt"}, {"stop", "stop"}, {""}} {
		if _, err := token.ParseScopes(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	for _, w := range token.AllScopes.Words() {
		if token.Means(w) == "" {
			t.Errorf("%s is not explained", w)
		}
	}
}

// FuzzParse feeds arbitrary text: no panic, and what is accepted is written back byte by byte and holds its bounds.
func FuzzParse(f *testing.F) {
	text := issue(f, grant(f)).Text()
	for _, seed := range []string{
		text, text[:len(text)-1], "", token.Prefix, "baileytoken2", issue(f, token.Grant{Scopes: token.AllScopes, Issued: issued, For: time.Hour}).Text(),
	} {
		f.Add(seed)
	}
	b := raw(f, text)
	b[20] = 0x80
	f.Add(resum(b))
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := token.Parse(text)
		if err != nil {
			var e *token.Error
			if !errors.As(err, &e) || e.Hint() == "" {
				t.Fatalf("%#v has no hint", err)
			}
			return
		}
		if tok.Text() != text {
			t.Fatalf("%q is written as %q", text, tok.Text())
		}
		if tok.Scopes == 0 || tok.Scopes&^token.AllScopes != 0 || tok.Expires.Sub(tok.NotBefore) > token.MaxWindow || !tok.Expires.After(tok.NotBefore) {
			t.Fatalf("accepted %+v", tok)
		}
	})
}
