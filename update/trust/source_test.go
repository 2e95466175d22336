package trust_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bailey/update/trust"
	"bailey/update/updatetest"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// config follows a repository at some mirrors.
func config(t testing.TB, r *updatetest.Repository, mirrors ...string) trust.Config {
	t.Helper()
	cfg := trust.Config{Dir: t.TempDir(), Root: r.RootFile(1), Now: func() time.Time { return now }}
	for _, m := range mirrors {
		cfg.Mirrors = append(cfg.Mirrors, trust.At(m))
	}
	return cfg
}

// look refreshes and returns the view and the newest of Acme.
func look(t testing.TB, cfg trust.Config) (*trust.View, trust.Offer) {
	t.Helper()
	c, err := trust.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	offers, _, err := v.Offers(t.Context(), updatetest.Acme())
	if err != nil || len(offers) == 0 {
		t.Fatal(offers, err)
	}
	return v, offers[0]
}

// onDisk writes what a repository serves below a directory.
func onDisk(t testing.TB, r *updatetest.Repository) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range r.Files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, text, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestACopyInADirectory(t *testing.T) {
	t.Parallel()
	r := updatetest.New(now)
	dir := onDisk(t, r)
	v, o := look(t, config(t, r, "file://"+dir))
	path, err := v.Download(t.Context(), o.Target, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "acme one" {
		t.Errorf("%q, %v", text, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestStrangeFilesInADirectory: a stick can hold pipes and links; none is waited for or followed out.
func TestStrangeFilesInADirectory(t *testing.T) {
	t.Parallel()
	r := updatetest.New(now)
	for name, make := range map[string]func(path string) error{
		"pipe":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"link_out":  func(path string) error { return os.Symlink("/dev/zero", path) },
		"link_up":   func(path string) error { return os.Symlink("../../../../../etc/passwd", path) },
	} {
		dir := onDisk(t, r)
		path := filepath.Join(dir, "metadata", "timestamp.json")
		if err := errors.Join(os.Remove(path), make(path)); err != nil {
			t.Fatal(err)
		}
		c, err := trust.New(config(t, r, "file://"+dir))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Refresh(t.Context()); !errors.Is(err, trust.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMirrorsThatAreNone(t *testing.T) {
	t.Parallel()
	for _, m := range []string{"", "/srv/repo", "ftp://host/repo", "file://host/repo", "https://", "https://host/repo?x=", "http://host/a#b", "://"} {
		if _, err := trust.New(trust.Config{Dir: "x", Root: []byte("{}"), Mirrors: []trust.Mirror{{Metadata: m, Targets: m}}}); err == nil {
			t.Errorf("%q is a mirror", m)
		}
	}
}

// cutting ends every answer with a bundle after n bytes, until it is told not to.
type cutting struct {
	server *updatetest.Server
	n      int
	whole  atomic.Bool
	ranges atomic.Int32
}

func (c *cutting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Range") != "" {
		c.ranges.Add(1)
	}
	if !strings.HasSuffix(r.URL.Path, ".tar.zst") || c.whole.Load() {
		c.server.ServeHTTP(w, r)
		return
	}
	rec := httptest.NewRecorder()
	c.server.ServeHTTP(rec, r)
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	if _, err := w.Write(rec.Body.Bytes()[:min(c.n, rec.Body.Len())]); err == nil {
		w.(http.Flusher).Flush()
	}
	panic(http.ErrAbortHandler)
}

func TestDownloadGoesOn(t *testing.T) {
	t.Parallel()
	r := updatetest.New(now)
	data := bytes.Repeat([]byte("bundle "), 10_000)
	r.Release(updatetest.Acme(), "2", data)
	r.Commit()
	h := &cutting{server: &updatetest.Server{Repository: r}, n: 20_000}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	cfg, at := config(t, r, server.URL), now
	cfg.Now = func() time.Time { return at }
	v, o := look(t, cfg)
	dir := t.TempDir()
	for i := range 3 {
		at = at.Add(trust.Rest(i))
		if path, err := v.Download(t.Context(), o.Target, dir); !errors.Is(err, trust.ErrUnavailable) {
			t.Fatalf("try %d: %q, %v", i, path, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || !strings.HasSuffix(entries[0].Name(), ".part") {
		t.Fatalf("%v, %v", entries, err)
	}
	if info, err := entries[0].Info(); err != nil || info.Size() != 60_000 {
		t.Errorf("%d bytes after three tries, %v", info.Size(), err)
	}
	h.whole.Store(true)
	at = at.Add(trust.Rest(3))
	path, err := v.Download(t.Context(), o.Target, dir)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || !bytes.Equal(text, data) {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if h.ranges.Load() != 3 {
		t.Errorf("%d requests for a part", h.ranges.Load())
	}
}

// TestRoom: the disk is not filled.
func TestRoom(t *testing.T) {
	t.Parallel()
	r := updatetest.New(now)
	cfg := config(t, r, "file://"+onDisk(t, r))
	cfg.LeaveFree = 1 << 60
	v, o := look(t, cfg)
	if path, err := v.Download(t.Context(), o.Target, t.TempDir()); !errors.Is(err, trust.ErrSpace) {
		t.Errorf("%q, %v", path, err)
	}
}

// memoryMirror serves a repository without a network, so that time can stand still.
type memoryMirror struct{ files map[string][]byte }

func (m memoryMirror) RoundTrip(r *http.Request) (*http.Response, error) {
	text, found := m.files[strings.TrimPrefix(r.URL.Path, "/")]
	resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(text)), Request: r}
	if !found {
		resp.StatusCode = http.StatusNotFound
	}
	return resp, nil
}

// TestRate: a target takes the time that the operator allows it, which is not the mirror's fault; metadata is not held up.
func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := updatetest.New(now)
		data := bytes.Repeat([]byte("bundle "), 20_000)
		r.Release(updatetest.Acme(), "2", data)
		r.Commit()
		cfg := config(t, r, "http://mirror")
		cfg.Transport, cfg.Pace = memoryMirror{r.Files}, trust.Pace{Rate: 1000, Window: time.Second, Bytes: 4000}
		begin := time.Now()
		v, o := look(t, cfg)
		if took := time.Since(begin); took > time.Second {
			t.Errorf("metadata took %s", took)
		}
		begin = time.Now()
		if _, err := v.Download(t.Context(), o.Target, t.TempDir()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < 135*time.Second || took > 145*time.Second {
			t.Errorf("140,000 bytes at 1,000 a second took %s", took)
		}
	})
}

// TestSpoiltPart: what is left of an earlier try may be anything.
func TestSpoiltPart(t *testing.T) {
	t.Parallel()
	r := updatetest.New(now)
	server := httptest.NewServer(&updatetest.Server{Repository: r})
	t.Cleanup(server.Close)
	v, o := look(t, config(t, r, server.URL))
	for name, part := range map[string]string{"other": "xxxx", "whole_and_other": "xxxxxxxx", "longer": "acme one and more", "beginning": "acme", "whole": "acme one", "nothing": ""} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, o.SHA256+".part"), []byte(part), 0o600); err != nil {
			t.Fatal(err)
		}
		path, err := v.Download(t.Context(), o.Target, dir)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != "acme one" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, o.SHA256), []byte("acme 0ne"), 0o600); err != nil {
		t.Fatal(err)
	}
	if path, err := v.Download(t.Context(), o.Target, dir); err != nil {
		t.Error(err)
	} else if text, err := os.ReadFile(path); err != nil || string(text) != "acme one" {
		t.Errorf("what was damaged on the disk stays: %q, %v", text, err)
	}
}

// TestMirrors: the next one helps where the first is down, stale or lies.
func TestMirrors(t *testing.T) {
	t.Parallel()
	r := updatetest.New(now)
	good := httptest.NewServer(&updatetest.Server{Repository: r})
	t.Cleanup(good.Close)
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	empty := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(empty.Close)
	stale := updatetest.New(now.Add(-48 * time.Hour))
	old := httptest.NewServer(&updatetest.Server{Repository: stale})
	t.Cleanup(old.Close)
	liar := httptest.NewServer(&updatetest.Server{Repository: r, Instead: func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, ".zst") {
			_, err := w.Write([]byte("acme 0ne"))
			return err == nil
		}
		return false
	}})
	t.Cleanup(liar.Close)
	for name, first := range map[string]string{"down": down.URL, "empty": empty.URL, "stale": old.URL, "liar": liar.URL} {
		v, o := look(t, config(t, r, first, good.URL))
		path, err := v.Download(t.Context(), o.Target, t.TempDir())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != "acme one" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}

func TestOneAtATime(t *testing.T) {
	t.Parallel()
	r := updatetest.New(now)
	cfg := config(t, r, "file://"+onDisk(t, r))
	look(t, cfg)
	c, err := trust.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Refresh(t.Context()); !errors.Is(err, trust.ErrInUse) {
		t.Errorf("a second look: %v", err)
	}
}

// TestStateThatCannotBeRead: to begin anew would let in what is older.
func TestStateThatCannotBeRead(t *testing.T) {
	t.Parallel()
	r := updatetest.New(now)
	server := httptest.NewServer(&updatetest.Server{Repository: r})
	t.Cleanup(server.Close)
	for _, name := range []string{"roles/timestamp.json", "roles/snapshot.json", "roles/targets.json", "roots/1.json", "state.json"} {
		cfg := config(t, r, server.URL)
		refresh := func() error {
			c, err := trust.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			v, err := c.Refresh(t.Context())
			if err == nil {
				v.Close()
			}
			return err
		}
		if err := refresh(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(cfg.Dir, filepath.FromSlash(name))
		if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
			t.Fatal(err)
		}
		if err := refresh(); !errors.Is(err, trust.ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPlan: the recovery policy and everything else that was verified, in one value.
func TestPlan(t *testing.T) {
	t.Parallel()
	r := updatetest.New(now)
	r.Release(updatetest.Acme(), "1.1", []byte("acme two"))
	r.Delegate("policy", "policy/recovery.json", 1, updatetest.NewKey("policy"))
	r.Target("policy", "policy/recovery.json", []byte(`{"schema":1,"disabled":[{"vendor":"acme","product":"edr","kind":"content","version":"1.1","reason":"crashes"}]}`), nil)
	newer := strings.Replace(`{"schema":2,"x":1}`, "x", "anything", 1)
	r.Target(updatetest.Acme().Role(), "acme/edr/content/9.tar.zst", []byte("later"), []byte(newer))
	r.Commit()
	v, _ := look(t, config(t, r, "file://"+onDisk(t, r)))
	p, err := v.Plan(t.Context(), updatetest.Acme(), updatetest.Globex())
	if err != nil {
		t.Fatal(err)
	}
	a := p.Streams[0]
	if len(a.Offers) != 1 || a.Offers[0].Release.Version.String() != "1.0" || len(a.Disabled) != 1 || a.Disabled[0].Reason != "crashes" || len(a.Unusable) != 1 {
		t.Errorf("%+v", a)
	}
	if b := p.Streams[1]; len(b.Offers) != 1 || b.Problem != "" {
		t.Errorf("%+v", b)
	}
	if got := v.Streams(); len(got) != 2 || got[0] != updatetest.Acme() {
		t.Errorf("%v", got)
	}
}
