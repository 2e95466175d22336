package operatorkey_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bailey/agent/unlock/operatorkey"

	"github.com/google/go-cmp/cmp"
)

const passphrase = "correct horse battery"

func generate(t testing.TB, name string) (operatorkey.Public, ed25519.PrivateKey) {
	t.Helper()
	p, private, err := operatorkey.Generate(name)
	if err != nil {
		t.Fatal(err)
	}
	return p, private
}

func TestPublicAndBack(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "alice", "Ålice of operations"} {
		p, _ := generate(t, name)
		got, err := operatorkey.ParsePublic(p.String())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(p, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestParsePublicRefuses(t *testing.T) {
	t.Parallel()
	p, _ := generate(t, "")
	line := p.String()
	for name, bad := range map[string]string{
		"empty": "", "cut": line[:len(line)-1], "longer": line + "a", "upper": strings.ToUpper(line), "leading_space": " " + line,
		"trailing_space": line + " ", "control": line + " a\x1b", "changed": line[:20] + flip(line[20]) + line[21:],
		"long_name": line + " " + strings.Repeat("a", 65), "token": "baileytoken1" + line,
	} {
		if p, err := operatorkey.ParsePublic(bad); err == nil {
			t.Errorf("%s: accepted as %+v", name, p)
		}
	}
}

func flip(c byte) string {
	if c == 'a' {
		return "b"
	}
	return "a"
}

func TestSealAndOpen(t *testing.T) {
	t.Parallel()
	p, private := generate(t, "alice")
	text, err := operatorkey.Seal(p, private, []byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, private.Seed()) {
		t.Error("the seed is in the file")
	}
	path := filepath.Join(t.TempDir(), "alice")
	if err := operatorkey.Create(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := operatorkey.Create(path, text, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a key is written over another: %v", err)
	}
	s, err := operatorkey.ReadSealed(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, s.Public); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := s.Open([]byte("correct horse batterz")); !errors.Is(err, operatorkey.ErrPassphrase) {
		t.Errorf("another passphrase: %v", err)
	}
	got, err := s.Open([]byte(passphrase))
	if err != nil || !got.Equal(private) {
		t.Errorf("open: %v", err)
	}
	// Whoever changes what is not secret is noticed: another name for the key, or a cheaper passphrase.
	for from, to := range map[string]string{"alice": "mallo", `"time": 6`: `"time": 1`} {
		changed := bytes.Replace(text, []byte(from), []byte(to), 1)
		other := filepath.Join(t.TempDir(), "changed")
		if err := operatorkey.Create(other, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := operatorkey.ReadSealed(other)
		if err == nil {
			_, err = s.Open([]byte(passphrase))
		}
		if err == nil {
			t.Errorf("%q became %q, and the key opens", from, to)
		}
	}
}

func TestShortPassphrase(t *testing.T) {
	t.Parallel()
	p, private := generate(t, "")
	if _, err := operatorkey.Seal(p, private, []byte("short")); err == nil {
		t.Error("accepted")
	}
}

func TestReadSealedRefuses(t *testing.T) {
	t.Parallel()
	p, _ := generate(t, "")
	for name, text := range map[string]string{
		"empty": "", "public": p.String() + "\n", "other_json": "{}", "unknown_field": `{"kind":"bailey operator key, private","more":1}`,
		"large":    strings.Repeat(" ", 9<<10),
		"dear":     `{"kind":"bailey operator key, private","version":1,"public":"` + p.String() + `","kdf":"argon2id","cost":{"time":1,"memory_kib":4000000,"threads":1},"salt":"AAAAAAAAAAAAAAAAAAAAAA==","cipher":"aes-256-gcm","nonce":"AAAAAAAAAAAAAAAA","sealed":""}`,
		"no_salt":  `{"kind":"bailey operator key, private","version":1,"kdf":"argon2id","cipher":"aes-256-gcm"}`,
		"later":    `{"kind":"bailey operator key, private","version":2}`,
		"two_docs": "not json",
	} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := operatorkey.ReadSealed(path); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestTrusted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, _ := generate(t, "a")
	b, _ := generate(t, "b")
	c, _ := generate(t, "c")
	write := func(name, text string, mode os.FileMode) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	write("b.pub", "# two, and one that is known\n"+b.String()+"\n"+a.String()+"\n", 0o644)
	write("c.txt", c.String()+"\n", 0o644) // another name: not a key
	keys, err := operatorkey.Read([]string{a.String()}, dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(operatorkey.Trusted{a, b}, keys); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, ok := keys.Find(b.ID()); !ok || got.Name != "b" {
		t.Errorf("b is not found: %+v", got)
	}
	if _, ok := keys.Find(c.ID()); ok {
		t.Error("c is trusted")
	}

	// What cannot be trusted is named, and takes nothing else along.
	write("loose.pub", c.String()+"\n", 0o666)
	write("broken.pub", "nonsense\n", 0o644)
	if err := os.Symlink(filepath.Join(dir, "c.txt"), filepath.Join(dir, "link.pub")); err != nil {
		t.Fatal(err)
	}
	keys, err = operatorkey.Read([]string{a.String()}, dir)
	if diff := cmp.Diff(operatorkey.Trusted{a, b}, keys); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, want := range []string{"loose.pub", "broken.pub", "link.pub"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
	if keys, err := operatorkey.Read(nil, filepath.Join(dir, "none")); err != nil || len(keys) != 0 {
		t.Errorf("a directory that is not there: %v, %v", keys, err)
	}
}

// FuzzParsePublic feeds arbitrary lines: no panic, and what is accepted is written back byte by byte.
func FuzzParsePublic(f *testing.F) {
	p, _ := generate(f, "alice")
	for _, seed := range []string{p.String(), operatorkey.PublicPrefix, "", p.String() + " "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if p, err := operatorkey.ParsePublic(line); err == nil && p.String() != line {
			t.Fatalf("%q is written as %q", line, p)
		}
	})
}
