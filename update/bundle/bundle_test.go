package bundle_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bailey/update/bundle"
	"bailey/update/release"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

func about(t testing.TB) release.Description {
	t.Helper()
	v, err := release.ParseVersion("1.2")
	if err != nil {
		t.Fatal(err)
	}
	return release.Description{Schema: 1, Vendor: "acme", Product: "edr", Kind: release.Content, Version: v, Platforms: []string{"linux/amd64"}, Urgency: release.Routine}
}

// folder makes a release's files, with times and permissions that must not matter.
func folder(t testing.TB, mode fs.FileMode) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"rules.bin": strings.Repeat("rule\n", 1000), "bin/scan": "#!/bin/true\n", "a/b/" + strings.Repeat("long", 30) + ".txt": "x", "empty": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		m := mode
		if strings.HasPrefix(name, "bin/") {
			m |= 0o100
		}
		if err := errors.Join(os.WriteFile(path, []byte(text), m), os.Chmod(path, m), os.Chtimes(path, time.Now(), time.Unix(int64(mode), 0))); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func pack(t testing.TB, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := bundle.Pack(&b, dir, about(t), bundle.Limits{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSameFilesMakeTheSameBytes(t *testing.T) {
	t.Parallel()
	if !bytes.Equal(pack(t, folder(t, 0o600)), pack(t, folder(t, 0o644))) {
		t.Error("two bundles of the same files differ")
	}
}

func TestUnpackGivesWhatWasPacked(t *testing.T) {
	t.Parallel()
	from, to := folder(t, 0o644), t.TempDir()
	text := pack(t, from)
	m, err := bundle.Unpack(bytes.NewReader(text), to, bundle.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Files) != 4 || !m.Release.Equal(about(t)) {
		t.Errorf("%+v", m)
	}
	for _, f := range m.Files {
		a, aerr := os.ReadFile(filepath.Join(from, f.Path))
		b, berr := os.ReadFile(filepath.Join(to, f.Path))
		if aerr != nil || berr != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs: %v, %v", f.Path, aerr, berr)
		}
		if info, err := os.Stat(filepath.Join(to, f.Path)); err != nil || info.Mode().Perm()&0o100 != 0 != f.Exec || f.Exec != (f.Path == "bin/scan") {
			t.Errorf("%s: exec %v, %v, %v", f.Path, f.Exec, info.Mode(), err)
		}
	}
	if got, err := bundle.ReadManifest(bytes.NewReader(text), bundle.Limits{}); err != nil || len(got.Files) != 4 {
		t.Errorf("read the manifest alone: %v", err)
	}
	if _, err := bundle.Unpack(bytes.NewReader(text), to, bundle.Limits{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("files are unpacked over others: %v", err)
	}
}

func TestPackRefuses(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(dir string) error{
		"link":     func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, "link")) },
		"pipe":     func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600) },
		"manifest": func(dir string) error { return os.WriteFile(filepath.Join(dir, "manifest.json"), nil, 0o600) },
		"name":     func(dir string) error { return os.WriteFile(filepath.Join(dir, "a\x1b[2Jb"), nil, 0o600) },
	} {
		dir := folder(t, 0o644)
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := bundle.Pack(&bytes.Buffer{}, dir, about(t), bundle.Limits{}); err == nil {
			t.Errorf("%s is packed", name)
		}
	}
	if _, err := bundle.Pack(&bytes.Buffer{}, t.TempDir(), about(t), bundle.Limits{}); err == nil {
		t.Error("nothing is packed")
	}
	for name, l := range map[string]bundle.Limits{"files": {Files: 3}, "file": {File: 100}, "total": {Total: 5010}} {
		if _, err := bundle.Pack(&bytes.Buffer{}, folder(t, 0o644), about(t), l); err == nil {
			t.Errorf("%s: packed over the limit", name)
		}
	}
}

// entry is one entry of a hand-made bundle.
type entry struct {
	tar.Header
	text string
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// forge makes a bundle of anything.
func forge(t testing.TB, entries []entry, after string) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for _, e := range entries {
		e.Header.Size = int64(len(e.text))
		if e.Typeflag == 0 {
			e.Typeflag = tar.TypeReg
		}
		if e.Typeflag != tar.TypeReg {
			e.Header.Size = 0
		}
		if e.Mode == 0 {
			e.Mode = 0o644
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if e.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(e.text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write([]byte(after)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// manifestOf writes a manifest as Pack does, for files given as path, text, path, text…
func manifestOf(t testing.TB, files ...string) entry {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(dir, files[i])
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(files[i+1]), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	z, err := zstd.NewReader(bytes.NewReader(pack(t, dir)))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	r := tar.NewReader(z)
	h, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	text := make([]byte, h.Size)
	if _, err := r.Read(text); err != nil && err.Error() != "EOF" {
		t.Fatal(err)
	}
	return entry{tar.Header{Name: bundle.Name}, string(text)}
}

func file(name, text string) entry { return entry{tar.Header{Name: name}, text} }

func TestUnpackRefuses(t *testing.T) {
	t.Parallel()
	m := manifestOf(t, "a", "one", "b", "two")
	change := func(from, to string) entry {
		text := strings.Replace(m.text, from, to, 1)
		if text == m.text {
			t.Fatalf("%q is not in the manifest", from)
		}
		return entry{m.Header, text}
	}
	for name, bad := range map[string][]byte{
		"empty":         {},
		"no_zstd":       []byte("not zstd at all"),
		"no_manifest":   forge(t, []entry{file("a", "one"), file("b", "two")}, ""),
		"missing":       forge(t, []entry{m, file("a", "one")}, ""),
		"more":          forge(t, []entry{m, file("a", "one"), file("b", "two"), file("c", "three")}, ""),
		"twice":         forge(t, []entry{m, file("a", "one"), file("a", "one")}, ""),
		"order":         forge(t, []entry{m, file("b", "two"), file("a", "one")}, ""),
		"other_text":    forge(t, []entry{m, file("a", "0ne"), file("b", "two")}, ""),
		"other_size":    forge(t, []entry{m, file("a", "oneone"), file("b", "two")}, ""),
		"setuid":        forge(t, []entry{m, {tar.Header{Name: "a", Mode: 0o4755}, "one"}, file("b", "two")}, ""),
		"owner":         forge(t, []entry{m, {tar.Header{Name: "a", Uid: 1}, "one"}, file("b", "two")}, ""),
		"symlink":       forge(t, []entry{m, {tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, ""}, file("b", "two")}, ""),
		"hard_link":     forge(t, []entry{m, {tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "b"}, ""}, file("b", "two")}, ""),
		"device":        forge(t, []entry{m, {tar.Header{Name: "a", Typeflag: tar.TypeChar}, ""}, file("b", "two")}, ""),
		"directory":     forge(t, []entry{m, {tar.Header{Name: "a/", Typeflag: tar.TypeDir}, ""}, file("b", "two")}, ""),
		"attributes":    forge(t, []entry{m, {tar.Header{Name: "a", PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "x"}}, "one"}, file("b", "two")}, ""),
		"after_the_end": forge(t, []entry{m, file("a", "one"), file("b", "two")}, "more"),
		"up":            forge(t, []entry{change(`"a"`, `"../a"`), file("../a", "one"), file("b", "two")}, ""),
		"absolute":      forge(t, []entry{change(`"a"`, `"/a"`), file("/a", "one"), file("b", "two")}, ""),
		"inside_a_file": forge(t, []entry{change(`"b"`, `"a/b"`), file("a", "one"), file("a/b", "two")}, ""),
		"dots":          forge(t, []entry{change(`"a"`, `"./a"`), file("./a", "one"), file("b", "two")}, ""),
		"manifest_too":  forge(t, []entry{change(`"b"`, `"manifest.json"`), file("a", "one"), file("manifest.json", "two")}, ""),
		"other_writing": forge(t, []entry{change(`{`, `{ `), file("a", "one"), file("b", "two")}, ""),
		"null":          forge(t, []entry{change(`"size": 3`, `"size": null`), file("a", "one"), file("b", "two")}, ""),
		"unknown":       forge(t, []entry{change(`"size": 3`, `"size": 3, "uid": 0`), file("a", "one"), file("b", "two")}, ""),
	} {
		dir := t.TempDir()
		if _, err := bundle.Unpack(bytes.NewReader(bad), filepath.Join(dir), bundle.Limits{}); err == nil {
			t.Errorf("%s is unpacked", name)
		}
		if _, err := bundle.Verify(bytes.NewReader(bad), bundle.Limits{}); err == nil {
			t.Errorf("%s is verified", name)
		}
	}
	good := forge(t, []entry{m, file("a", "one"), file("b", "two")}, "")
	if _, err := bundle.Verify(bytes.NewReader(good), bundle.Limits{}); err != nil {
		t.Errorf("what is forged without a fault: %v", err)
	}
	for i := range len(good) {
		if _, err := bundle.Verify(bytes.NewReader(good[:i]), bundle.Limits{}); err == nil {
			t.Errorf("the first %d of %d bytes are a bundle", i, len(good))
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "zeros"), make([]byte, 64<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	bomb := pack(t, dir)
	t.Logf("%d bytes unpack to %d", len(bomb), 64<<20)
	for name, l := range map[string]bundle.Limits{"ratio": {}, "compressed": {Compressed: 1000, Ratio: 1 << 30}} {
		if _, err := bundle.Verify(bytes.NewReader(bomb), l); !errors.Is(err, bundle.ErrLimit) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, l := range map[string]bundle.Limits{"total": {Total: 1 << 20, Ratio: 1 << 30}, "file": {File: 1 << 20, Ratio: 1 << 30}} {
		if _, err := bundle.Verify(bytes.NewReader(bomb), l); err == nil {
			t.Errorf("%s: a bundle over the limit is unpacked", name)
		}
	}
	if _, err := bundle.Verify(bytes.NewReader(bomb), bundle.Limits{Ratio: 1 << 30}); err != nil {
		t.Error(err)
	}
}

// TestSparseFilesAreRefused: an archive can say that a file is mostly holes, which no ratio would count.
func TestSparseFilesAreRefused(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	m := manifestOf(t, "a", strings.Repeat("\x00", 1024))
	body := "1\n1024\n0\n" + strings.Repeat("\x00", 512-9)
	records := ""
	for _, kv := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=a", "GNU.sparse.realsize=1024"} {
		records += record(kv)
	}
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for _, e := range []entry{m, {tar.Header{Name: "PaxHeaders.0/a", Typeflag: tar.TypeReg}, records}, {tar.Header{Name: "GNUSparseFile.0/a"}, body}} {
		e.Header.Size, e.Mode = int64(len(e.text)), 0o644
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	// tar.Writer writes no such header itself: make the second entry one, with its check sum.
	plain, err := unzip(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(plain, []byte("PaxHeaders.0/a"))
	plain[at+156] = 'x'
	copy(plain[at+148:], "        ")
	sum := 0
	for _, c := range plain[at : at+512] {
		sum += int(c)
	}
	copy(plain[at+148:], fmt.Sprintf("%06o\x00 ", sum))
	r := tar.NewReader(bytes.NewReader(plain))
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if h, err := r.Next(); err != nil || h.Name != "a" || h.Size != 1024 {
		t.Fatalf("the archive is not forged well: %+v, %v", h, err)
	}
	zw, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = zw.Close() }()
	if _, err := bundle.Verify(bytes.NewReader(zw.EncodeAll(plain, nil)), bundle.Limits{}); err == nil || !strings.Contains(err.Error(), "GNU.sparse") {
		t.Errorf("a sparse file: %v", err)
	}
}

func unzip(text []byte) ([]byte, error) {
	z, err := zstd.NewReader(nil)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return z.DecodeAll(text, nil)
}

func record(kv string) string {
	for n := len(kv) + 3; ; n++ {
		if text := fmt.Sprintf("%d %s\n", n, kv); len(text) == n {
			return text
		}
	}
}

func TestManifestIsParsedStrictly(t *testing.T) {
	t.Parallel()
	m := manifestOf(t, "a", "one")
	got, err := bundle.ParseManifest([]byte(m.text), bundle.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]bundle.File{{Path: "a", Size: 3, SHA256: digest("one")}}, got.Files); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// manifestText is a manifest as Pack writes it, of one file with this text, without the cost of packing one.
func manifestText(t testing.TB, text string) string {
	t.Helper()
	d, err := about(t).JSON()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, fmt.Appendf(nil, `{"release":%s,"files":[{"path":"a","size":%d,"sha256":"%s"}]}`, d, len(text), digest(text)), "", " "); err != nil {
		t.Fatal(err)
	}
	return b.String() + "\n"
}

// FuzzUnpack feeds arbitrary archives, compressed well: no panic, and nothing outside of the directory.
func FuzzUnpack(f *testing.F) {
	text := `{"a"}`
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	m := manifestText(f, text)
	for _, e := range []entry{{tar.Header{Name: bundle.Name, Size: int64(len(m))}, m}, {tar.Header{Name: "a", Size: int64(len(text))}, text}} {
		e.Mode = 0o644
		if err := w.WriteHeader(&e.Header); err != nil {
			f.Fatal(err)
		}
		if _, err := w.Write([]byte(e.text)); err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	zw, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(64<<10))
	if err != nil {
		f.Fatal(err)
	}
	if _, err := bundle.Verify(bytes.NewReader(zw.EncodeAll(b.Bytes(), nil)), bundle.Limits{}); err != nil {
		f.Fatalf("the seed is no bundle: %v", err)
	}
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:1024])
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _ = bundle.Verify(bytes.NewReader(text), bundle.Limits{})
		outside := t.TempDir()
		dir := filepath.Join(outside, "in")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		_, _ = bundle.Unpack(bytes.NewReader(zw.EncodeAll(text, nil)), dir, bundle.Limits{})
		if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
			t.Fatalf("outside of the directory: %v, %v", entries, err)
		}
	})
}

// FuzzParseManifest: no panic, and no path that leads out.
func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(manifestText(f, "one")))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := bundle.ParseManifest(text, bundle.Limits{})
		if err != nil {
			return
		}
		for _, file := range m.Files {
			if !filepath.IsLocal(file.Path) || file.Path != filepath.Clean(file.Path) {
				t.Fatalf("%q", file.Path)
			}
		}
	})
}
