package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"bailey/internal/strictjson"
	"bailey/update/release"
)

// Name is the manifest's own path in a bundle. No file of a release can have it.
const Name = "manifest.json"

// Limits bounds what is packed and unpacked. A zero field is its default.
type Limits struct {
	Files      int   // files; 10,000
	File       int64 // bytes of one file; 1 GiB
	Total      int64 // bytes of all files; 2 GiB
	Compressed int64 // bytes of the bundle; 1 GiB
	Ratio      int64 // how many times larger than what was read of the bundle its files can be, beyond the first MiB; 200
}

func (l Limits) orDefault() Limits {
	set := func(p *int64, n int64) {
		if *p == 0 {
			*p = n
		}
	}
	if l.Files == 0 {
		l.Files = 10_000
	}
	set(&l.File, 1<<30)
	set(&l.Total, 2<<30)
	set(&l.Compressed, 1<<30)
	set(&l.Ratio, 200)
	return l
}

const (
	maxManifest = 4 << 20
	maxPath     = 200
	maxDepth    = 16
	freeRatio   = 1 << 20 // bytes that no ratio is asked of: a file of zeros is no attack while it is small
)

// Manifest is the first file of a bundle.
type Manifest struct {
	Release release.Description `json:"release"`
	Files   []File              `json:"files"` // in order of their paths
}

// File is one file of a release.
type File struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	Exec   bool   `json:"exec,omitempty"` // it is a program
}

var (
	hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)
	pathPart  = regexp.MustCompile(`^[0-9A-Za-z_.@+=,%:-][0-9A-Za-z _.@+=,%:-]*$`)
)

// ParseManifest reads a manifest. What is not exactly one, or lists more than l allows, is an error.
func ParseManifest(text []byte, l Limits) (Manifest, error) {
	var raw struct {
		Release json.RawMessage `json:"release"`
		Files   []File          `json:"files"`
	}
	if err := strictjson.Unmarshal(text, strictjson.Limits{Bytes: maxManifest, Depth: 6}, &raw); err != nil {
		return Manifest{}, fmt.Errorf("read the manifest: %w", err)
	}
	d, err := release.Parse(raw.Release)
	if err != nil {
		return Manifest{}, fmt.Errorf("read the manifest: %w", err)
	}
	m := Manifest{Release: d, Files: raw.Files}
	return m, m.check(l.orDefault())
}

// Bytes is how many bytes the files have.
func (m Manifest) Bytes() (n int64) {
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

func (m Manifest) check(l Limits) error {
	if len(m.Files) == 0 || len(m.Files) > l.Files {
		return fmt.Errorf("check the manifest: %d files, where 1 to %d are allowed", len(m.Files), l.Files)
	}
	var total int64
	before, seen := "", map[string]bool{}
	for _, f := range m.Files {
		if err := checkPath(f.Path); err != nil {
			return fmt.Errorf("check the manifest: %w", err)
		}
		if f.Size < 0 || f.Size > l.File || !hexDigest.MatchString(f.SHA256) {
			return fmt.Errorf("check the manifest: the size or the digest of %s is out of range", f.Path)
		}
		if f.Path <= before {
			return fmt.Errorf("check the manifest: %s is twice or out of order", f.Path)
		}
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			if seen[dir] {
				return fmt.Errorf("check the manifest: %s is a file and a directory", dir)
			}
		}
		before, seen[f.Path] = f.Path, true
		if total += f.Size; total > l.Total {
			return fmt.Errorf("check the manifest: its files have more than %d bytes", l.Total)
		}
	}
	return nil
}

// checkPath refuses what could lead out of a directory, or be shown as something else than it is.
func checkPath(p string) error {
	parts := strings.Split(p, "/")
	bad := len(p) > maxPath || len(parts) > maxDepth || p == Name || slices.ContainsFunc(parts, func(s string) bool {
		return s == "." || s == ".." || !pathPart.MatchString(s)
	})
	if bad {
		return fmt.Errorf("%.220q is no path that a release can have", p)
	}
	return nil
}

// encode returns the one text of the manifest.
func (m Manifest) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(m); err != nil {
		return nil, fmt.Errorf("write the manifest: %w", err)
	}
	if b.Len() > maxManifest {
		return nil, fmt.Errorf("write the manifest: it has %d bytes, at most %d", b.Len(), maxManifest)
	}
	return b.Bytes(), nil
}
