package bundle_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"bailey/update/bundle"

	"github.com/google/go-cmp/cmp"
)

// rules are many lines that no compressor makes small, without some and with others: what changes every day.
func rules(without, with int) []byte {
	var b bytes.Buffer
	for i := range 20_000 {
		if i/100 == without {
			continue
		}
		sum := sha256.Sum256(fmt.Appendf(nil, "rule %d", i))
		fmt.Fprintf(&b, "rule %d %s\n", i, hex.EncodeToString(sum[:12]))
	}
	for i := range with {
		fmt.Fprintf(&b, "new rule %d\n", i)
	}
	return b.Bytes()
}

// rulesDir holds rules and a file that stays.
func rulesDir(t testing.TB, text []byte) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "rules"), text, 0o644), os.WriteFile(filepath.Join(dir, "same"), []byte("same"), 0o644)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func unpack(t testing.TB, text []byte) (string, bundle.Manifest) {
	t.Helper()
	dir := t.TempDir()
	m, err := bundle.Unpack(bytes.NewReader(text), dir, bundle.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return dir, m
}

func delta(t testing.TB, base, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := bundle.MakeDelta(&b, bytes.NewReader(base), bytes.NewReader(text), bundle.Limits{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDelta(t *testing.T) {
	t.Parallel()
	base, text := pack(t, rulesDir(t, rules(-1, 0))), pack(t, rulesDir(t, rules(7, 50)))
	d := delta(t, base, text)
	t.Logf("a bundle of %d bytes, a delta of %d", len(text), len(d))
	if len(d)*20 > len(text) {
		t.Errorf("a delta of %d bytes for a bundle of %d", len(d), len(text))
	}
	if !bytes.Equal(d, delta(t, base, text)) {
		t.Error("two deltas of the same differ")
	}
	dir, m := unpack(t, base)
	to := t.TempDir()
	got, err := bundle.ApplyDelta(bytes.NewReader(d), dir, m, to, bundle.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	_, want := unpack(t, text)
	if diff := cmp.Diff(want.Files, got.Files); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if b, err := os.ReadFile(filepath.Join(to, "rules")); err != nil || !bytes.Equal(b, rules(7, 50)) {
		t.Errorf("the rules differ: %v", err)
	}
	if entries, err := os.ReadDir(filepath.Dir(to)); err != nil || len(entries) > 8 {
		t.Errorf("something is left behind: %v, %v", entries, err)
	}
}

func TestApplyDeltaRefuses(t *testing.T) {
	t.Parallel()
	base, text := pack(t, rulesDir(t, rules(-1, 0))), pack(t, rulesDir(t, rules(3, 5)))
	d := delta(t, base, text)
	dir, m := unpack(t, base)
	other, otherManifest := unpack(t, text)
	if _, err := bundle.ApplyDelta(bytes.NewReader(d), other, otherManifest, t.TempDir(), bundle.Limits{}); !errors.Is(err, bundle.ErrBase) {
		t.Errorf("another base: %v", err)
	}
	for i := 0; i < len(d); i += 1 + len(d)/40 {
		if _, err := bundle.ApplyDelta(bytes.NewReader(d[:i]), dir, m, t.TempDir(), bundle.Limits{}); err == nil {
			t.Errorf("the first %d bytes are applied", i)
		}
		spoilt := bytes.Clone(d)
		spoilt[i] ^= 4
		if _, err := bundle.ApplyDelta(bytes.NewReader(spoilt), dir, m, t.TempDir(), bundle.Limits{}); err == nil {
			t.Errorf("with a bit of byte %d it is applied", i)
		}
	}
	if _, err := bundle.ApplyDelta(bytes.NewReader(text), dir, m, t.TempDir(), bundle.Limits{}); err == nil {
		t.Error("a bundle is applied as a delta")
	}
	if _, err := bundle.ApplyDelta(bytes.NewReader(d), dir, m, t.TempDir(), bundle.Limits{Total: 10_000}); err == nil {
		t.Error("a delta over the limit is applied")
	}
	if err := os.WriteFile(filepath.Join(dir, "same"), []byte("s4me"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := bundle.ApplyDelta(bytes.NewReader(d), dir, m, t.TempDir(), bundle.Limits{}); !errors.Is(err, bundle.ErrBase) {
		t.Errorf("a base that has changed: %v", err)
	}
}

// FuzzApplyDelta: no panic, nothing outside, no goroutine that waits for ever.
func FuzzApplyDelta(f *testing.F) {
	small := func(text string) []byte { return pack(f, rulesDir(f, []byte(text))) }
	base := small("one rule")
	plain, err := unzip(delta(f, base, small("two rules")))
	if err != nil {
		f.Fatal(err)
	}
	dir, m := unpack(f, base)
	f.Add(plain)
	f.Fuzz(func(t *testing.T, text []byte) {
		outside := t.TempDir()
		to := filepath.Join(outside, "in")
		if err := os.Mkdir(to, 0o700); err != nil {
			t.Fatal(err)
		}
		_, _ = bundle.ApplyDelta(bytes.NewReader(stored(text)), dir, m, to, bundle.Limits{})
		if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
			t.Fatalf("outside of the directory: %v, %v", entries, err)
		}
	})
}

// stored is a zstd frame that holds text as it is, in blocks of up to 64 KiB.
func stored(text []byte) []byte {
	out := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50} // magic, no flags, a window of 1 MiB
	for {
		n := min(len(text), 64<<10)
		last := 0
		if n == len(text) {
			last = 1
		}
		h := last | n<<3
		out = append(out, byte(h), byte(h>>8), byte(h>>16))
		out = append(out, text[:n]...)
		if text = text[n:]; last == 1 {
			return out
		}
	}
}
