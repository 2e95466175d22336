package publish

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"path"
	"strings"
	"time"
)

// maxTagged bounds what is read to make a tag of; only the timestamp is asked for by tag.
const maxTagged = 64 << 10

// Handler serves a repository: for tests, for one site, for a machine that hands on what it has. Any web server can do it as well; none needs to
// be trusted. It shows no directories and follows no link out.
func Handler(dir string) (http.Handler, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &handler{root: root}, nil
}

type handler struct{ root *os.Root }

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "a repository is only read", http.StatusMethodNotAllowed)
		return
	}
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	if !strings.HasPrefix(name, "metadata/") && !strings.HasPrefix(name, "targets/") || strings.HasSuffix(r.URL.Path, "/") {
		http.NotFound(w, r)
		return
	}
	f, err := h.root.Open(name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if path.Base(name) == "timestamp.json" {
		w.Header().Set("Cache-Control", "no-cache")
		if tag := tagOf(f); tag != "" {
			w.Header().Set("ETag", tag)
		}
	} else {
		// A name with a version or a digest always means the same bytes.
		w.Header().Set("Cache-Control", "public, max-age=86400, immutable")
		w.Header().Set("ETag", `"`+name+`"`)
	}
	http.ServeContent(w, r, "", time.Time{}, f)
}

// tagOf makes a tag of a small file's content.
func tagOf(f *os.File) string {
	text, err := io.ReadAll(io.LimitReader(f, maxTagged+1))
	if err != nil || len(text) > maxTagged {
		return ""
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return ""
	}
	sum := sha256.Sum256(text)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}
