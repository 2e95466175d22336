package bundle

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"bailey/internal/durable"

	"github.com/klauspost/compress/zstd"
)

// ErrLimit says that a bundle is larger in some way than allowed.
var ErrLimit = errors.New("over a limit")

// ReadManifest reads the manifest of a bundle and nothing of what follows it.
func ReadManifest(r io.Reader, l Limits) (Manifest, error) {
	u, err := open(r, l)
	if err != nil {
		return Manifest{}, err
	}
	defer u.z.Close()
	return u.manifest()
}

// Unpack writes the files of a bundle below dir, which must be there and empty, and syncs them. After an error dir holds anything, and is
// the caller's to remove.
func Unpack(r io.Reader, dir string, l Limits) (Manifest, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Manifest{}, fmt.Errorf("unpack a bundle: %w", err)
	}
	defer func() { _ = root.Close() }()
	u, err := open(r, l)
	if err != nil {
		return Manifest{}, err
	}
	defer u.z.Close()
	return u.into(root, dir)
}

// into writes all files below dir.
func (u *unpacker) into(root *os.Root, dir string) (Manifest, error) {
	return u.each(func(f File, in io.Reader) error { return writeNew(root, f, in) }, func(m Manifest) error { return syncDirs(dir, m) })
}

// Verify reads a whole bundle as Unpack does and writes nothing.
func Verify(r io.Reader, l Limits) (Manifest, error) {
	u, err := open(r, l)
	if err != nil {
		return Manifest{}, err
	}
	defer u.z.Close()
	return u.each(func(_ File, in io.Reader) error { _, err := io.Copy(io.Discard, in); return err }, func(Manifest) error { return nil })
}

// each gives every file to take, in order, and ends with done.
func (u *unpacker) each(take func(File, io.Reader) error, done func(Manifest) error) (Manifest, error) {
	m, err := u.manifest()
	if err != nil {
		return Manifest{}, err
	}
	for _, f := range m.Files {
		if err := u.file(f, take); err != nil {
			return Manifest{}, fmt.Errorf("unpack %s: %w", f.Path, u.why(err))
		}
	}
	if err := u.end(); err != nil {
		return Manifest{}, fmt.Errorf("unpack a bundle: %w", u.why(err))
	}
	return m, done(m)
}

// unpacker is one pass over a bundle.
type unpacker struct {
	l   Limits
	in  *counter // of what is compressed
	z   *zstd.Decoder
	out *counter // of what is not
	t   *tar.Reader
}

func open(r io.Reader, l Limits) (*unpacker, error) {
	l = l.orDefault()
	in := &counter{r: r, left: l.Compressed + 1}
	z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window), zstd.WithDecoderMaxMemory(uint64(l.Total)+maxManifest+4<<20))
	if err != nil {
		return nil, fmt.Errorf("unpack a bundle: %w", err)
	}
	out := &counter{r: z, left: l.tar()}
	out.over = func(n int64) bool { return n > freeRatio && n > in.n*l.Ratio }
	return &unpacker{l: l, in: in, z: z, out: out, t: tar.NewReader(out)}, nil
}

// tar is how many bytes an uncompressed bundle can have: headers and padding come to at most 2 KiB a file, with the path of a long name in a
// record of its own.
func (l Limits) tar() int64 { return l.Total + maxManifest + int64(l.Files+2)*4096 }

// why names the limit instead of what its end looks like to the readers above.
func (u *unpacker) why(err error) error {
	if u.in.hit || u.out.hit {
		return fmt.Errorf("%w: %d bytes unpacked from %d", ErrLimit, u.out.n, u.in.n)
	}
	return err
}

func (u *unpacker) manifest() (Manifest, error) {
	h, err := u.next(Name)
	if err != nil {
		return Manifest{}, fmt.Errorf("unpack a bundle: %w", u.why(err))
	}
	if h.Size > maxManifest {
		return Manifest{}, fmt.Errorf("unpack a bundle: %w: a manifest of %d bytes", ErrLimit, h.Size)
	}
	text, err := io.ReadAll(u.t)
	if err != nil {
		return Manifest{}, fmt.Errorf("unpack a bundle: %w", u.why(err))
	}
	m, err := ParseManifest(text, u.l)
	if err != nil {
		return Manifest{}, err
	}
	if again, err := m.encode(); err != nil || !bytes.Equal(again, text) {
		return Manifest{}, errors.New("unpack a bundle: its manifest is not written as Pack writes it")
	}
	return m, nil
}

// next reads the next header, which must be exactly that of a file with this path.
func (u *unpacker) next(p string) (*tar.Header, error) {
	h, err := u.t.Next()
	if errors.Is(err, io.EOF) {
		return nil, io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	if h.Typeflag != tar.TypeReg || h.Name != p || h.Linkname != "" || h.Uid != 0 || h.Gid != 0 || h.Uname+h.Gname != "" {
		return nil, fmt.Errorf("a header of %.220q with type %q, where a plain file %s is due", h.Name, h.Typeflag, p)
	}
	for name := range h.PAXRecords {
		if name != "path" { // holes in files, among others
			return nil, fmt.Errorf("a header with %.60q", name)
		}
	}
	return h, nil
}

func (u *unpacker) file(f File, take func(File, io.Reader) error) error {
	h, err := u.next(f.Path)
	if err != nil {
		return err
	}
	if h.Size != f.Size || os.FileMode(h.Mode) != mode(f) {
		return fmt.Errorf("size %d and mode %o are not the manifest's", h.Size, h.Mode)
	}
	digest := sha256.New()
	if err := take(f, io.TeeReader(u.t, digest)); err != nil {
		return err
	}
	if hex.EncodeToString(digest.Sum(nil)) != f.SHA256 {
		return errors.New("the digest is not the manifest's")
	}
	return nil
}

// end makes sure that nothing follows.
func (u *unpacker) end() error {
	if h, err := u.t.Next(); err == nil {
		return fmt.Errorf("%.220q is not in the manifest", h.Name)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	n, err := io.Copy(io.Discard, u.out)
	if err != nil {
		return err
	}
	if n != 0 {
		return fmt.Errorf("%d bytes follow its end", n)
	}
	return nil
}

// writeNew writes one file, new, whole and synced.
func writeNew(root *os.Root, f File, in io.Reader) error {
	if dir := path.Dir(f.Path); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	out, err := root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode(f))
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// syncDirs puts the names of all files on the disk.
func syncDirs(dir string, m Manifest) error {
	done := map[string]bool{}
	for _, f := range m.Files {
		for d := path.Dir(f.Path); !done[d]; d = path.Dir(d) {
			done[d] = true
			if err := durable.SyncDir(filepath.Join(dir, filepath.FromSlash(d))); err != nil {
				return fmt.Errorf("unpack a bundle: %w", err)
			}
		}
	}
	return nil
}

// counter reads up to a number of bytes, and while nothing is over.
type counter struct {
	r    io.Reader
	n    int64
	left int64
	over func(n int64) bool
	hit  bool
}

func (c *counter) Read(b []byte) (int, error) {
	if c.left <= 0 || c.over != nil && c.over(c.n) {
		c.hit = true
		return 0, ErrLimit
	}
	if int64(len(b)) > c.left {
		b = b[:c.left]
	}
	n, err := c.r.Read(b)
	c.n += int64(n)
	c.left -= int64(n)
	return n, err
}
