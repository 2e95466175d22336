package digest

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"bailey/internal/leakcheck"
	"bailey/sdk/packagedb"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func open(t testing.TB, content []byte) (*os.File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, path
}

func newCache(t testing.TB, cfg Config) *Cache {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func identify(t testing.TB, f *os.File) Identity {
	t.Helper()
	id, _, err := Stat(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestSums(t *testing.T) {
	t.Parallel()
	content := make([]byte, 1<<20+17)
	for i := range content {
		content[i] = byte(i * 7)
	}
	f, path := open(t, content)
	c := newCache(t, Config{})
	if _, err := f.Seek(100, 0); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s, err := c.Sums(t.Context(), int(f.Fd()), identify(t, f), packagedb.MD5)
		if err != nil {
			t.Fatal(err)
		}
		m := md5.Sum(content)
		if s.SHA256 != sha256.Sum256(content) || string(s.Of(packagedb.MD5)) != string(m[:]) || s.Of(packagedb.SHA1) != nil {
			t.Error("wrong digests")
		}
	}
	if got := c.Stats(); got.Reads != 1 || got.Hits != 2 {
		t.Errorf("%+v, want one read and two hits", got)
	}
	if at, err := f.Seek(0, 1); err != nil || at != 100 {
		t.Errorf("the shared offset moved to %d (%v)", at, err)
	}
	if _, err := c.Sums(t.Context(), int(f.Fd()), identify(t, f), packagedb.SHA512); err != nil {
		t.Fatal(err)
	}
	if got := c.Stats(); got.Reads != 2 {
		t.Errorf("%+v: another algorithm needs another read", got)
	}
	if err := os.WriteFile(path, content[1:], 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := c.Sums(t.Context(), int(f.Fd()), identify(t, f), packagedb.MD5)
	if err != nil || s.SHA256 != sha256.Sum256(content[1:]) {
		t.Errorf("the digest of the old content was given for the new one (%v)", err)
	}
}

func TestChangedFileLeavesNothing(t *testing.T) {
	t.Parallel()
	f, path := open(t, []byte("before"))
	old := identify(t, f)
	if err := os.WriteFile(path, []byte("before and after"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newCache(t, Config{})
	if _, err := c.Sums(t.Context(), int(f.Fd()), old, packagedb.MD5); !errors.Is(err, ErrChanged) {
		t.Errorf("got %v, want ErrChanged", err)
	}
	if len(c.sums) != 0 {
		t.Error("a digest was remembered")
	}
}

// TestLate asks with no time for a large file: the answer comes in the background and is there for the next one.
func TestLate(t *testing.T) {
	t.Parallel()
	f, path := open(t, nil)
	const size = 64 << 20
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	c := newCache(t, Config{})
	id := identify(t, f)
	late := errors.New("late")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, late)
	defer cancel()
	if _, err := c.Sums(ctx, int(f.Fd()), id, packagedb.MD5); !errors.Is(err, late) {
		t.Fatalf("got %v", err)
	}
	if err := f.Close(); err != nil { // as the SDK does when the answer is given
		t.Fatal(err)
	}
	var others sync.WaitGroup
	for range 4 {
		others.Go(func() {
			if _, err := c.Sums(t.Context(), -1, id, packagedb.MD5); err != nil {
				t.Errorf("the next one got %v", err)
			}
		})
	}
	others.Wait()
	if got := c.Stats(); got.Reads != 1 || got.Late != 1 {
		t.Errorf("%+v, want one late read", got)
	}
}

func TestBounded(t *testing.T) {
	t.Parallel()
	c := newCache(t, Config{Entries: 4})
	for i := range 20 {
		f, _ := open(t, []byte{byte(i)})
		if _, err := c.Sums(t.Context(), int(f.Fd()), identify(t, f), packagedb.MD5); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.sums) != 4 {
		t.Errorf("%d entries, at most 4 are allowed", len(c.sums))
	}
}

func BenchmarkRead(b *testing.B) {
	f, path := open(b, nil)
	const size = 64 << 20
	if err := os.Truncate(path, size); err != nil {
		b.Fatal(err)
	}
	id := identify(b, f)
	b.SetBytes(size)
	for b.Loop() {
		if _, err := compute(int(f.Fd()), id, packagedb.MD5); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHit(b *testing.B) {
	f, _ := open(b, []byte("x"))
	c := newCache(b, Config{})
	id := identify(b, f)
	if _, err := c.Sums(b.Context(), int(f.Fd()), id, packagedb.MD5); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Sums(b.Context(), int(f.Fd()), id, packagedb.MD5); err != nil {
			b.Fatal(err)
		}
	}
}
