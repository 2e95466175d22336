package updatetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Server serves a repository over HTTP, with tags and ranges. It is safe for concurrent use, as far as the repository is left alone meanwhile.
type Server struct {
	Repository *Repository
	// Instead, if it is set, may answer a request itself and say so.
	Instead func(w http.ResponseWriter, r *http.Request) bool

	mu   sync.Mutex
	seen []string
	busy int
	idle chan struct{} // closed when busy becomes 0; nil if nobody waits
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w, status: http.StatusOK}
	s.begin()
	defer func() { s.end(http.StatusText(rec.status) + " " + r.URL.Path) }()
	if s.Instead != nil && s.Instead(rec, r) {
		return
	}
	text, found := s.Repository.Files[strings.TrimPrefix(r.URL.Path, "/")]
	if !found {
		http.NotFound(rec, r)
		return
	}
	sum := sha256.Sum256(text)
	rec.Header().Set("ETag", `"`+hex.EncodeToString(sum[:8])+`"`)
	http.ServeContent(rec, r, "", time.Time{}, bytes.NewReader(text))
}

// Idle waits until no request is answered any more, as after a client that has given up: then the repository may be changed.
func (s *Server) Idle() {
	s.mu.Lock()
	if s.busy == 0 {
		s.mu.Unlock()
		return
	}
	idle := make(chan struct{})
	s.idle = idle
	s.mu.Unlock()
	<-idle
}

func (s *Server) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy++
}

func (s *Server) end(seen string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, seen)
	if s.busy--; s.busy == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// Seen returns the requests since it was last called, each with what the answer was.
func (s *Server) Seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.seen
	s.seen = nil
	return out
}

type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Flush sends what was written so far.
func (r *recorder) Flush() {
	if f, ok := r.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}
