package bundle

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"archive/tar"

	"bailey/internal/blockdelta"
	"bailey/internal/strictjson"

	"github.com/klauspost/compress/zstd"
)

// ErrBase says that a delta begins at another release than the one that is there. The bundle itself helps.
var ErrBase = errors.New("a delta of another base")

// DeltaMax bounds what deltas are made between: both are held in memory while one is made.
const DeltaMax = 512 << 20

// maxHead bounds the head of a delta.
const maxHead = 4 << 10

// head begins a delta, as JSON behind its length. Both texts are uncompressed bundles, so that a machine can make the base again from its files.
type head struct {
	Base Text `json:"base"`
	Text Text `json:"text"`
}

// Text is an uncompressed bundle.
type Text struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// MakeDelta writes what a machine that has the base needs to have the new bundle. Both must be sound.
func MakeDelta(w io.Writer, base, bundle io.Reader, l Limits) error {
	old, err := plain(base, l)
	if err != nil {
		return fmt.Errorf("make a delta: the base: %w", err)
	}
	text, err := plain(bundle, l)
	if err != nil {
		return fmt.Errorf("make a delta: %w", err)
	}
	h, err := json.Marshal(head{Base: textOf(old), Text: textOf(text)})
	if err != nil {
		return fmt.Errorf("make a delta: %w", err)
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithWindowSize(window), zstd.WithEncoderCRC(true))
	if err != nil {
		return fmt.Errorf("make a delta: %w", err)
	}
	_, err = z.Write(append(binary.AppendUvarint(nil, uint64(len(h))), h...))
	if err == nil {
		err = blockdelta.Make(z, old, text)
	}
	return errors.Join(err, z.Close())
}

func textOf(b []byte) Text {
	sum := sha256.Sum256(b)
	return Text{Size: int64(len(b)), SHA256: hex.EncodeToString(sum[:])}
}

// plain uncompresses a bundle, and looks at all of it.
func plain(r io.Reader, l Limits) ([]byte, error) {
	var b bytes.Buffer
	u, err := open(r, l)
	if err != nil {
		return nil, err
	}
	defer u.z.Close()
	u.out.left = min(u.out.left, DeltaMax)
	u.t = tar.NewReader(io.TeeReader(u.out, &b))
	if _, err = u.manifest(); err != nil {
		return nil, err
	}
	if _, err := io.Copy(&b, u.out); err != nil {
		return nil, u.why(err)
	}
	again := &unpacker{l: u.l, in: u.in, out: &counter{r: bytes.NewReader(b.Bytes()), left: int64(b.Len()) + 1}}
	again.t = tar.NewReader(again.out)
	_, err = again.each(func(_ File, in io.Reader) error { _, err := io.Copy(io.Discard, in); return err }, func(Manifest) error { return nil })
	return b.Bytes(), err
}

// ApplyDelta makes a release out of a delta and the one before it, whose files are in baseDir and were unpacked with the manifest base. It writes below
// dir as Unpack does. ErrBase means that baseDir is not what the delta begins at, or not any more.
func ApplyDelta(r io.Reader, baseDir string, base Manifest, dir string, l Limits) (Manifest, error) {
	d, err := open(r, l)
	if err != nil {
		return Manifest{}, err
	}
	defer d.z.Close()
	in := bufio.NewReader(d.out)
	h, err := readHead(in, d.l)
	if err != nil {
		return Manifest{}, fmt.Errorf("apply a delta: %w", d.why(err))
	}
	old, err := rebuild(baseDir, base, dir, h.Base)
	if err != nil {
		return Manifest{}, fmt.Errorf("apply a delta: %w", err)
	}
	defer old.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Manifest{}, fmt.Errorf("apply a delta: %w", err)
	}
	defer func() { _ = root.Close() }()

	// One goroutine makes the text and the other unpacks it; whoever ends first ends the other.
	from, to := io.Pipe()
	sum := sha256.New()
	made := make(chan error, 1)
	go func() {
		err := blockdelta.Apply(io.MultiWriter(to, sum), old, h.Base.Size, in, h.Text.Size)
		if err == nil {
			err = nothingMore(in)
		}
		made <- err
		_ = to.CloseWithError(err) // nil is the end of the text
	}()
	u := &unpacker{l: d.l, in: d.in, out: &counter{r: from, left: h.Text.Size + 1}}
	u.t = tar.NewReader(u.out)
	m, err := u.into(root, dir)
	_ = from.CloseWithError(io.ErrClosedPipe)
	if merr := <-made; merr != nil && !errors.Is(merr, io.ErrClosedPipe) {
		err = merr
	}
	if err == nil && hex.EncodeToString(sum.Sum(nil)) != h.Text.SHA256 {
		err = errors.New("what it makes is not what it says")
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("apply a delta: %w", d.why(err))
	}
	return m, nil
}

// DeltaBytes is how many bytes there will be on the disk while a delta is applied: what it makes, and what it is made from.
func DeltaBytes(r io.Reader, l Limits) (int64, error) {
	d, err := open(r, l)
	if err != nil {
		return 0, err
	}
	defer d.z.Close()
	h, err := readHead(bufio.NewReader(d.out), d.l)
	return h.Text.Size + h.Base.Size, err
}

func readHead(in *bufio.Reader, l Limits) (head, error) {
	n, err := binary.ReadUvarint(in)
	if err != nil {
		return head{}, err
	}
	if n > maxHead {
		return head{}, fmt.Errorf("%w: a head of %d bytes", ErrLimit, n)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(in, text); err != nil {
		return head{}, err
	}
	var h head
	if err := strictjson.Unmarshal(text, strictjson.Limits{Bytes: maxHead, Depth: 2}, &h); err != nil {
		return head{}, err
	}
	for _, t := range []Text{h.Base, h.Text} {
		if t.Size < 1 || t.Size > l.tar() || !hexDigest.MatchString(t.SHA256) {
			return head{}, fmt.Errorf("%w: a text of %d bytes", ErrLimit, t.Size)
		}
	}
	return h, nil
}

// rebuild makes the uncompressed bundle again that the files in a directory came from, in a file without a name beside dir.
func rebuild(baseDir string, base Manifest, dir string, want Text) (*os.File, error) {
	root, err := os.OpenRoot(baseDir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBase, err)
	}
	defer func() { _ = root.Close() }()
	f, err := os.CreateTemp(filepath.Dir(dir), ".base-")
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	n := &counter{}
	err = errors.Join(os.Remove(f.Name()), writeTar(io.MultiWriter(f, h, n), root, base))
	if err == nil && (n.n != want.Size || hex.EncodeToString(h.Sum(nil)) != want.SHA256) {
		err = errors.New("its digest is another")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrBase, err), f.Close())
	}
	return f, nil
}

func nothingMore(in *bufio.Reader) error {
	switch _, err := in.ReadByte(); {
	case err == nil:
		return errors.New("something follows it")
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// Write counts what is written.
func (c *counter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return len(b), nil
}
