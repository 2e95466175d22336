package client

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"bailey/update/bundle"
	"bailey/update/release"
	"bailey/update/trust"
	"bailey/update/updatetest"
)

// signed is a world whose repository is a real one, which signs, behind a network.
type signed struct {
	*world
	repo *updatetest.Repository
	line *line
	conf trust.Config
}

// newSigned makes a world whose clock is w.now, or, in a bubble of synctest, the bubble's.
func newSigned(t *testing.T, bubble bool) *signed {
	t.Helper()
	s := &signed{world: newWorld(t, content)}
	if bubble {
		s.now = time.Now()
	}
	s.repo = updatetest.New(s.now)
	clear(s.repo.Roles[content.Role()].Signed.Targets) // they are no bundles
	s.line = &line{server: &updatetest.Server{Repository: s.repo}}
	s.conf = trust.Config{
		Dir: filepath.Join(s.dir, "trust"), Root: s.repo.RootFile(1), Mirrors: []trust.Mirror{trust.At("http://mirror")}, Transport: s.line, Now: s.cfg.Now,
	}
	if bubble {
		s.conf.Now, s.cfg.Now = nil, nil
	}
	s.boot()
	s.preinstall("7.1", "old")
	return s
}

// boot starts the agent's side anew.
func (s *signed) boot() {
	s.t.Helper()
	c, err := trust.New(s.conf)
	if err != nil {
		s.t.Fatal(err)
	}
	s.cfg.Repository = Trusted{c}
	s.world.boot()
}

// publish signs a release of content at the repository's own time.
func (s *signed) publish(version, rules string) {
	s.t.Helper()
	s.repo.Release(content, version, bundleOf(s.t, updatetest.Describe(content, version), rules))
	s.repo.Commit()
}

// bundleOf makes the bundle of a release of content.
func bundleOf(t *testing.T, d release.Description, rules string) []byte {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "rules"), rules)
	var b bytes.Buffer
	if _, err := bundle.Pack(&b, dir, d, bundle.Limits{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// line is a network to one mirror that counts what it is asked.
type line struct {
	server http.Handler
	broken func(r *http.Request) (*http.Response, error) // nil: it is not

	targets func(r *http.Request) (*http.Response, error) // the same for them alone

	mu    sync.Mutex
	asked int
}

func (l *line) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	broken := l.broken
	if l.targets != nil && strings.HasPrefix(r.URL.Path, "/targets/") {
		broken = l.targets
	}
	l.asked++
	l.mu.Unlock()
	if broken != nil {
		return broken(r)
	}
	rec := httptest.NewRecorder()
	l.server.ServeHTTP(rec, r)
	return rec.Result(), nil
}

// become changes what the line does and returns how often it was asked before.
func (l *line) become(broken func(*http.Request) (*http.Response, error)) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	asked := l.asked
	l.broken, l.asked = broken, 0
	return asked
}
