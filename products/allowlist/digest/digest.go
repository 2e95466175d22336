// Package digest computes and remembers digests of files that are given as descriptors. It opens no file by name and never
// moves a descriptor's offset.
//
// Invariant: a digest is remembered under the identity (device, inode, change time, size) that the file had before and
// after it was read, so a file that was written meanwhile leaves nothing behind.
package digest

import (
	"context"
	"crypto/md5"  // what dpkg records; see sdk/packagedb
	"crypto/sha1" // what old rpm records
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"bailey/sdk/packagedb"

	"golang.org/x/sys/unix"
)

// ErrChanged says that the file was written while it was read.
var ErrChanged = errors.New("the file changed while it was read")

// errBusy says that too many files are being read beyond their deadline already.
var errBusy = errors.New("too many files are being read")

// Config bounds the cache.
type Config struct {
	Entries    int // digests remembered; default 32768, some 8 MB
	Concurrent int // files read at once; default 8
}

// Cache computes digests and remembers them. Safe for concurrent use.
type Cache struct {
	cfg     Config
	reading chan struct{} // one slot per file being read

	mu       sync.Mutex
	sums     map[Identity]*Sums
	order    []Identity // ring: what was remembered first goes first
	next     int
	inflight map[Identity]*flight
	stats    Stats
}

// Stats counts what the cache did.
type Stats struct {
	Hits, Reads, Shared, Late uint64 // Late: finished after the one who asked had gone
}

// Identity is one state of one file.
type Identity struct {
	Dev, Ino uint64
	CTime    int64
	Size     int64
}

// Sums are a file's digests. Immutable.
type Sums struct {
	SHA256 [sha256.Size]byte
	Other  []byte              // by Algorithm
	By     packagedb.Algorithm // what Other was computed by; NoDigest if it was not asked for
}

// Of returns the digest by an algorithm, nil if it was not computed.
func (s *Sums) Of(a packagedb.Algorithm) []byte {
	switch a {
	case packagedb.SHA256:
		return s.SHA256[:]
	case s.By:
		return s.Other
	}
	return nil
}

type flight struct {
	want packagedb.Algorithm
	done chan struct{}
	sums *Sums
	err  error
}

// New returns an empty cache.
func New(cfg Config) (*Cache, error) {
	if cfg.Entries == 0 {
		cfg.Entries = 32768
	}
	if cfg.Concurrent == 0 {
		cfg.Concurrent = 8
	}
	if cfg.Entries < 0 || cfg.Concurrent < 0 {
		return nil, fmt.Errorf("digest cache of %d entries and %d readers", cfg.Entries, cfg.Concurrent)
	}
	return &Cache{
		cfg: cfg, reading: make(chan struct{}, cfg.Concurrent),
		sums: make(map[Identity]*Sums), order: make([]Identity, cfg.Entries), inflight: make(map[Identity]*flight),
	}, nil
}

// Stat returns the identity, owner and mode of the file behind a descriptor.
func Stat(fd int) (Identity, *unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Identity{}, nil, fmt.Errorf("stat the question's file: %w", err)
	}
	return Identity{Dev: st.Dev, Ino: st.Ino, CTime: st.Ctim.Nano(), Size: st.Size}, &st, nil
}

// Known returns remembered digests, nil if there are none; it never waits.
func (c *Cache) Known(id Identity, want packagedb.Algorithm) *Sums {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sums[id]
	if s == nil || (want != packagedb.NoDigest && s.Of(want) == nil) {
		return nil
	}
	c.stats.Hits++
	return s
}

// Sums returns the file's SHA-256 and its digest by want. When ctx ends first it returns ctx's cause, reads the file to
// its end in the background on a descriptor of its own, and has the answer for the next one who asks.
func (c *Cache) Sums(ctx context.Context, fd int, id Identity, want packagedb.Algorithm) (*Sums, error) {
	if s := c.Known(id, want); s != nil {
		return s, nil
	}
	c.mu.Lock()
	f := c.inflight[id]
	if f != nil && (want == packagedb.NoDigest || want == packagedb.SHA256 || f.want == want) {
		c.stats.Shared++
		c.mu.Unlock()
		return wait(ctx, f)
	}
	c.mu.Unlock()
	select {
	case c.reading <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", errBusy, context.Cause(ctx))
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		<-c.reading
		return nil, fmt.Errorf("keep the question's file: %w", err)
	}
	f = &flight{want: want, done: make(chan struct{})}
	c.mu.Lock()
	c.inflight[id] = f
	c.stats.Reads++
	c.mu.Unlock()
	go c.read(ctx, own, id, f)
	return wait(ctx, f)
}

func wait(ctx context.Context, f *flight) (*Sums, error) {
	select {
	case <-f.done:
		return f.sums, f.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// read fills f and ends it. It does not stop when ctx does: the work is not lost for the next one.
func (c *Cache) read(ctx context.Context, fd int, id Identity, f *flight) {
	defer func() { <-c.reading }()
	f.sums, f.err = compute(fd, id, f.want)
	_ = unix.Close(fd) // read-only: closing cannot lose anything
	c.mu.Lock()
	if c.inflight[id] == f {
		delete(c.inflight, id)
	}
	if f.err == nil {
		c.remember(id, f.sums)
	}
	if ctx.Err() != nil {
		c.stats.Late++
	}
	c.mu.Unlock()
	close(f.done)
}

// remember replaces the oldest entry. Called with mu held.
func (c *Cache) remember(id Identity, s *Sums) {
	if c.sums[id] == nil {
		delete(c.sums, c.order[c.next])
		c.order[c.next] = id
		c.next = (c.next + 1) % len(c.order)
	}
	c.sums[id] = s
}

// Stats returns the counts so far.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

var buffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

func compute(fd int, id Identity, want packagedb.Algorithm) (*Sums, error) {
	buf := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buf)
	main := sha256.New()
	other := newHash(want)
	for at := int64(0); ; {
		n, err := unix.Pread(fd, buf[:], at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the question's file: %w", err)
		}
		if n == 0 {
			break
		}
		at += int64(n)
		if at > id.Size { // it grows: do not run after it
			return nil, ErrChanged
		}
		write(main, buf[:n])
		if other != nil {
			write(other, buf[:n])
		}
	}
	if now, _, err := Stat(fd); err != nil {
		return nil, err
	} else if now != id {
		return nil, ErrChanged
	}
	s := &Sums{}
	main.Sum(s.SHA256[:0])
	if other != nil {
		s.By, s.Other = want, other.Sum(nil)
	}
	return s, nil
}

// write never fails: hash.Hash promises it.
func write(w io.Writer, b []byte) { _, _ = w.Write(b) }

// newHash returns nil for SHA-256, which is always computed, and for what is unknown.
func newHash(a packagedb.Algorithm) hash.Hash {
	switch a {
	case packagedb.MD5:
		return md5.New() // see the import
	case packagedb.SHA1:
		return sha1.New() // see the import
	case packagedb.SHA384:
		return sha512.New384()
	case packagedb.SHA512:
		return sha512.New()
	}
	return nil
}
