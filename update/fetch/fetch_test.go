package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bailey/internal/leakcheck"
	"bailey/update/client"
	"bailey/update/release"
	"bailey/update/trust"
	"bailey/update/updatetest"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

var (
	acme   = updatetest.Acme()
	globex = updatetest.Globex()
)

// process runs a function at the other end of a connection, as a process would.
type process struct {
	conn net.Conn
	said string
	over chan struct{}
}

func (p *process) Conn() net.Conn { return p.conn }

func (p *process) End() string {
	_ = p.conn.Close()
	<-p.over
	return p.said
}

// stand is a repository, a server, and a machine with an agent's side and another one.
type stand struct {
	*updatetest.Repository
	t       *testing.T
	server  *updatetest.Server
	cfg     Config
	r       *Repository
	started int
	// life is what the process does; nil is Serve.
	life func(conn net.Conn) error
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s := &stand{Repository: updatetest.New(time.Now()), t: t}
	s.server = &updatetest.Server{Repository: s.Repository}
	h := httptest.NewServer(s.server)
	t.Cleanup(h.Close)
	s.cfg = Config{
		Dir: filepath.Join(t.TempDir(), "fetch"), Start: s.start, Patience: 10 * time.Second,
		Setup: Setup{Root: s.RootFile(1), Mirrors: []trust.Mirror{trust.At(h.URL)}, Streams: []string{acme.String(), globex.String()}},
		Trust: trust.Config{Dir: t.TempDir(), Root: s.RootFile(1)},
	}
	s.boot()
	return s
}

func (s *stand) boot() {
	s.t.Helper()
	var err error
	if s.r, err = New(s.cfg); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.r.Close)
}

func (s *stand) start() (Process, error) {
	s.started++
	ours, theirs := net.Pipe()
	p := &process{conn: ours, over: make(chan struct{})}
	life := s.life
	if life == nil {
		life = s.serve
	}
	go func() {
		defer close(p.over)
		if err := life(theirs); err != nil {
			p.said = "panic: " + err.Error() + "\n\ngoroutine 1 [running]:\nmain.main()\n"
		}
		_ = theirs.Close()
	}()
	return p, nil
}

func (s *stand) serve(conn net.Conn) error { return Serve(s.t.Context(), conn, s.cfg.Dir) }

// newest looks, and returns the text of the newest release of a stream.
func (s *stand) newest(stream release.Stream) (string, error) {
	v, err := s.r.Look(s.t.Context())
	if err != nil {
		return "", err
	}
	defer v.Close()
	p, err := v.Plan(s.t.Context(), stream)
	if err != nil {
		return "", err
	}
	if p.Streams[0].Problem != "" {
		return "", errors.New(p.Streams[0].Problem)
	}
	path, err := v.Download(s.t.Context(), p.Streams[0].Offers[0].Target, filepath.Join(s.cfg.Trust.Dir, "got"))
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	return string(text), err
}

func (s *stand) want(stream release.Stream, text string) {
	s.t.Helper()
	if got, err := s.newest(stream); err != nil || got != text {
		s.t.Fatalf("%s: %q, %v; want %q", stream, got, err, text)
	}
}

func TestFollows(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.want(acme, "acme one")
	s.Release(acme, "2", []byte("acme two"))
	s.Assign("timestamp", 1, updatetest.NewKey("another"))
	s.CommitRoot()
	s.Commit()
	s.want(acme, "acme two")
	s.want(globex, "globex one")
	if s.started != 1 {
		t.Errorf("%d processes", s.started)
	}
	s.r.Close()
	s.boot() // both begin with what they kept
	s.Release(acme, "3", []byte("acme three"))
	s.Commit()
	s.want(acme, "acme three")
	if left, err := filepath.Glob(filepath.Join(s.cfg.Dir, "targets", "*")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestOneVendorsFault is told in the words of who read it, and is that vendor's alone.
func TestOneVendorsFault(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.Put(acme.Role(), 9, []byte(`{"signed":null}`))
	s.CommitSnapshot()
	s.CommitTimestamp()
	if text, err := s.newest(acme); err == nil || !strings.Contains(err.Error(), "malformed") {
		t.Errorf("%q, %v", text, err)
	}
	s.want(globex, "globex one")
}

// TestOldNewsIsNone: what the process left is not taken for what it found now.
func TestOldNewsIsNone(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.want(acme, "acme one")
	s.server.Instead = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true }
	if text, err := s.newest(acme); !errors.Is(err, trust.ErrUnavailable) || !strings.Contains(err.Error(), "the server says 502") {
		t.Errorf("%q, %v", text, err)
	}
	s.server.Instead = nil
	if text, err := s.newest(acme); !errors.Is(err, trust.ErrUnavailable) { // it is left alone for a while
		t.Errorf("%q, %v", text, err)
	}
	s.r.Hurry()
	s.want(acme, "acme one")
}

// TestADirectoryBesideIt: a stick is read by the agent itself, also where no process can be started.
func TestADirectoryBesideIt(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	dir := t.TempDir()
	for name, text := range s.Files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, text, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	s.cfg.Start = func() (Process, error) { return nil, errors.New("no process") }
	s.boot()
	if _, err := s.newest(acme); err == nil || !strings.Contains(err.Error(), "no process") {
		t.Error(err)
	}
	s.cfg.Trust.Mirrors = []trust.Mirror{trust.At("file://" + dir)}
	s.boot()
	s.want(acme, "acme one")
}

// TestAnotherPlace starts another process when what it reads at its start is another.
func TestAnotherPlace(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	place := "here"
	s.cfg.Place = func() string { return place }
	s.boot()
	s.want(acme, "acme one")
	place = "there"
	s.want(acme, "acme one")
	s.want(acme, "acme one")
	if s.started != 2 {
		t.Errorf("%d processes", s.started)
	}
}

// hostile answers every request with what do says after it did something.
func hostile(do func(n int) string) func(net.Conn) error {
	return func(conn net.Conn) error {
		in := linesOf(conn)
		if err := in.next(&Setup{}); err != nil {
			return nil
		}
		for n := 0; ; n++ {
			if err := in.next(&request{}); err != nil {
				return nil
			}
			if _, err := io.WriteString(conn, do(n)); err != nil {
				return nil
			}
		}
	}
}

// TestNothingIsBelieved lets the process do its worst. What comes of it is an error of the look, or of the download, and nothing else; and the next
// process finds all as it should be.
func TestNothingIsBelieved(t *testing.T) {
	t.Parallel()
	fine := "{}\n"
	for name, c := range map[string]struct {
		life func(s *stand) func(net.Conn) error
		want string
		is   error
	}{
		"dies": {func(*stand) func(net.Conn) error {
			return func(net.Conn) error { return errors.New("index out of range") }
		}, `it said: "panic: index out of range"`, trust.ErrUnavailable},
		"dies_at_a_request": {func(*stand) func(net.Conn) error {
			return func(conn net.Conn) error {
				in := linesOf(conn)
				_, _ = in.next(&Setup{}), in.next(&request{})
				return errors.New("out of memory")
			}
		}, "out of memory", trust.ErrUnavailable},
		"hangs": {func(s *stand) func(net.Conn) error {
			return func(conn net.Conn) error { _, _ = io.Copy(io.Discard, conn); return nil }
		}, "nothing came of it for 400ms", trust.ErrUnavailable},
		"reads_nothing": {func(*stand) func(net.Conn) error {
			return func(conn net.Conn) error { _, _ = conn.Read(nil); <-time.After(5 * time.Second); return nil }
		}, "i/o timeout", nil},
		"babbles": {func(*stand) func(net.Conn) error { return hostile(func(int) string { return "hello\n" }) }, "invalid character", trust.ErrUnavailable},
		"never_ends": {func(*stand) func(net.Conn) error {
			return hostile(func(int) string { return strings.Repeat("x", maxLine+10) })
		}, "token too long", trust.ErrUnavailable},
		"brings_nothing": {func(*stand) func(net.Conn) error { return hostile(func(int) string { return fine }) }, "no such file", trust.ErrUnavailable},
		"blames_the_state": {func(*stand) func(net.Conn) error {
			return hostile(func(int) string { return `{"error":"x","class":"state"}` + "\n" })
		}, "x", trust.ErrState},
		"an_unknown_class": {func(*stand) func(net.Conn) error {
			return hostile(func(int) string { return `{"error":"x","class":"committed"}` + "\n" })
		}, "x", nil},
		"fills_the_disk": {func(s *stand) func(net.Conn) error {
			return hostile(func(int) string {
				if err := os.WriteFile(filepath.Join(s.cfg.Dir, "much"), make([]byte, 3<<20), 0o600); err != nil {
					return err.Error()
				}
				<-time.After(2 * time.Second)
				return fine
			})
		}, "it wrote 3145728 bytes", trust.ErrUnavailable},
		"another_root": {func(s *stand) func(net.Conn) error {
			return hostile(func(int) string {
				mallory := updatetest.New(time.Now())
				for _, role := range []string{"root", "timestamp", "snapshot", "targets"} {
					mallory.Assign(role, 1, updatetest.NewKey("mallory"))
				}
				mallory.CommitRoot()
				mallory.Commit()
				return s.lay(mallory.Files)
			})
		}, "", trust.ErrSignature},
		"what_was_before": {func(s *stand) func(net.Conn) error {
			old := s.Keep()
			s.Release(acme, "2", []byte("acme two"))
			s.Commit()
			s.want(acme, "acme two")
			return hostile(func(int) string { return s.lay(old) })
		}, "", trust.ErrRollback},
		"another_bundle": {func(s *stand) func(net.Conn) error {
			files := s.Keep()
			for name := range files {
				if strings.Contains(name, "targets/") {
					files[name] = []byte("acme 0ne")
				}
			}
			return hostile(func(int) string { return s.lay(files) })
		}, "its sha256 is another", trust.ErrMismatch},
		"links": {func(s *stand) func(net.Conn) error {
			return hostile(func(int) string {
				fault := s.lay(s.Keep())
				ts := filepath.Join(s.cfg.Dir, "metadata", "timestamp.json")
				if err := errors.Join(os.Remove(ts), os.Symlink("/etc/passwd", ts)); err != nil {
					return err.Error()
				}
				return fault
			})
		}, "path escapes", trust.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t)
			life := c.life(s)
			s.cfg.Patience, s.cfg.Spare = 400*time.Millisecond, 2<<20
			if name == "fills_the_disk" {
				s.cfg.Patience = 10 * time.Second
			}
			s.r.Close()
			s.boot()
			s.life = life
			text, err := s.newest(acme)
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%q, %v", text, err)
			}
			if errors.Is(err, trust.ErrInternal) {
				t.Error("the agent's side fell over")
			}
			s.life = nil
			s.r.Close()
			s.cfg.Patience = 10 * time.Second
			s.boot()
			if text, err := s.newest(acme); err != nil || !strings.HasPrefix(text, "acme ") || text == "acme 0ne" {
				t.Errorf("after it: %q, %v", text, err)
			}
		})
	}
}

// lay makes the process's directory a mirror of files, and returns an answer without a fault.
func (s *stand) lay(files map[string][]byte) string {
	for name, text := range files {
		path := filepath.Join(s.cfg.Dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, text, 0o644)); err != nil {
			return err.Error()
		}
	}
	return "{}\n"
}

// TestADownloadThatComes is not ended, however slowly it does, and is seen growing; with ctx the process ends.
func TestADownloadThatComes(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	data := make([]byte, 24<<10)
	s.Release(acme, "2", data)
	s.Commit()
	s.cfg.Setup.Rate = 12 << 10
	s.cfg.Patience = time.Second
	s.boot()
	v, err := s.r.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	p, err := v.Plan(t.Context(), acme)
	if err != nil || len(p.Streams[0].Offers) == 0 {
		t.Fatal(p, err)
	}
	o := p.Streams[0].Offers[0]
	grown := make(chan error, 1)
	go func() {
		for range 1000 {
			if n := s.r.come(&o.Target); n > 0 && n < o.Length {
				grown <- nil
				return
			}
			<-time.After(5 * time.Millisecond)
		}
		grown <- errors.New("never seen growing")
	}()
	begun := time.Now()
	if _, err := v.Download(t.Context(), o.Target, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took < 1200*time.Millisecond {
		t.Errorf("%d bytes took %v", o.Length, took)
	}
	if err := <-grown; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if path, err := v.Download(ctx, o.Target, t.TempDir()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%q, %v", path, err)
	}
}

// TestClassesAreNamedOnce: an answer says one class, and bounded ones fit.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for name, class := range classes {
		a := answerOf(fmt.Errorf("look: %w", class))
		if a.Class != name || !errors.Is(a.err(), class) || a.err().Error() != a.Error {
			t.Errorf("%s: %+v", name, a)
		}
	}
	if a := answerOf(errors.New("x")); a.Class != "" || a.err() == nil || answerOf(nil).err() != nil {
		t.Errorf("%+v", a)
	}
	many := answer{Error: strings.Repeat("\x00", 1<<20), Problems: map[string]string{}}
	for i := range 100 {
		many.Problems[fmt.Sprint(i)] = strings.Repeat("<", 1<<16)
	}
	var b strings.Builder
	if err := send(&b, bounded(many)); err != nil || b.Len() >= maxLine {
		t.Errorf("%d bytes, %v", b.Len(), err)
	}
}

var _ client.View = (*view)(nil)
