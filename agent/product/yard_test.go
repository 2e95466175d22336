package product_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/agent/product"
	"bailey/internal/leakcheck"
	"bailey/internal/roottest"
)

func TestMain(m *testing.M) {
	leakcheck.Main(m)
}

// testUIDs are this process's own, so that it can count the processes of a product beside a running agent.
var testUIDs = uint32(1_950_000_000 + 2048*(os.Getpid()%4096))

// programs builds the hostile product and the helper once per run. Where there is no go command, as in a test machine, it was
// built beside its source.
var programs = sync.OnceValues(func() (map[string]string, error) {
	out := "contain/testdata/hostile/hostile"
	if _, err := exec.LookPath("go"); err == nil {
		dir, err := os.MkdirTemp("", "programs")
		if err != nil {
			return nil, err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		out = filepath.Join(dir, "hostile")
		cmd := exec.Command("go", "build", "-o", out, "./contain/testdata/hostile")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build the hostile product: %w: %s", err, text)
		}
	}
	b, err := os.ReadFile(out)
	return map[string]string{"probe": string(b), "helper": string(b)}, err
})

// host keeps sockets open and notices when products hang up.
type host struct {
	mu        sync.Mutex
	instances []product.Instance
	sessions  map[string]*session
	promoted  int
	resumed   map[string]int  // how often a product went on with this agent
	silent    map[string]bool // products that never say that they can
}

func newHost() *host {
	return &host{sessions: map[string]*session{}, resumed: map[string]int{}, silent: map[string]bool{}}
}

type session struct {
	fd        int
	done      chan struct{}
	once      sync.Once
	err       error
	left      atomic.Bool
	resumable chan struct{}
	heard     chan string
}

func (h *host) Connect(inst product.Instance, sock int) (product.Session, error) {
	s := &session{fd: sock, done: make(chan struct{}), resumable: make(chan struct{}), heard: make(chan string, 100)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.instances = append(h.instances, inst)
	key := inst.Name
	if inst.Beside {
		key += product.Next
	}
	h.sessions[key] = s
	if !h.silent[inst.Name] {
		close(s.resumable)
	}
	go s.read()
	return s, nil
}

func (h *host) Resume(inst product.Instance, sock int) (product.Session, error) {
	h.mu.Lock()
	h.resumed[inst.Name]++
	h.mu.Unlock()
	return h.Connect(inst, sock)
}

// promote moves sessions as an agent moves authority.
func (h *host) promote(to, from product.Session) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	name := ""
	for key, s := range h.sessions {
		if product.Session(s) == to {
			name, _, _ = strings.Cut(key, ".")
			delete(h.sessions, key)
		}
	}
	if name == "" {
		return errors.New("who is to have authority is not there")
	}
	h.sessions[name] = to.(*session)
	if from != nil {
		h.sessions[name+product.Before] = from.(*session)
	}
	h.promoted++
	return nil
}

func (s *session) read() {
	b := make([]byte, 16)
	for {
		fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}
		ready, _ := unix.Poll(fds, 5)
		if s.left.Load() {
			s.end(nil)
			return
		}
		if ready <= 0 { // or a signal came: reading now might be for ever
			continue
		}
		n, err := unix.Read(s.fd, b)
		if n <= 0 && err != unix.EINTR {
			s.end(nil)
			return
		}
		select {
		case s.heard <- string(b[:max(n, 0)]):
		default:
		}
	}
}

func (s *session) end(err error)              { s.once.Do(func() { s.err = err; close(s.done) }) }
func (s *session) Stop(time.Time)             { _, _ = unix.Write(s.fd, []byte("stop")) }
func (s *session) Done() <-chan struct{}      { return s.done }
func (s *session) Err() error                 { return s.err }
func (s *session) Resumable() <-chan struct{} { return s.resumable }
func (s *session) Close() {
	_ = unix.Shutdown(s.fd, unix.SHUT_RDWR)
	<-s.done
	_ = unix.Close(s.fd)
}

func (s *session) Leave() {
	s.left.Store(true)
	<-s.done
	_ = unix.Close(s.fd)
}

func (h *host) last(name string) (product.Instance, *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, i := range slices.Backward(h.instances) {
		if i.Name == name {
			return i, h.sessions[name]
		}
	}
	return product.Instance{}, nil
}

// yard is one agent's products under test.
type yard struct {
	t      *testing.T
	base   string
	cfg    product.Config
	m      *product.Manager
	host   *host
	health *health.Registry
	stop   func()

	mu     sync.Mutex
	events []event.ProductDetail
}

func newYard(t *testing.T, change func(*product.Config)) *yard {
	t.Helper()
	roottest.Require(t, "products run as users of their own")
	y := &yard{t: t, base: t.TempDir(), host: newHost(), health: health.NewRegistry(), stop: func() {}}
	built, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	helper := filepath.Join(y.base, "helper")
	put(t, helper, built["helper"], 0o755)
	y.cfg = yardConfig(y.base)
	y.cfg.Host, y.cfg.Health, y.cfg.UIDBase = y.host, y.health, testUIDs
	y.cfg.Promote = func(to, from product.Session) error { return y.host.promote(to, from) }
	y.cfg.Emit = func(e *event.Event) {
		y.mu.Lock()
		defer y.mu.Unlock()
		y.events = append(y.events, *e.Product)
	}
	if change != nil {
		change(&y.cfg)
	}
	y.open()
	t.Cleanup(func() { y.stop() })
	return y
}

// yardConfig is what the agents of one yard have in common.
func yardConfig(base string) product.Config {
	return product.Config{
		State: filepath.Join(base, "state"), Run: filepath.Join(base, "run"), Log: slog.New(slog.DiscardHandler),
		Helper: []string{filepath.Join(base, "helper")}, StopTimeout: time.Second, Poll: 50 * time.Millisecond,
		Backoff: product.Backoff{First: 10 * time.Millisecond, Longest: 50 * time.Millisecond, Crashes: 4, CrashesFor: time.Minute},
	}
}

func (y *yard) open() {
	y.t.Helper()
	m, err := product.New(y.cfg)
	if err != nil {
		y.t.Fatal(err)
	}
	y.m = m
}

// run starts the manager; stop ends it and checks that it left nothing.
func (y *yard) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- y.m.Run(ctx) }()
	y.eventually("the manager runs", func() bool {
		return slices.ContainsFunc(y.health.List(), func(e health.Entry) bool { return e.Component == "containment.limits" })
	})
	y.stop = func() {
		y.stop = func() {}
		cancel()
		if err := <-done; err != nil {
			y.t.Errorf("run: %v", err)
		}
	}
}

func (y *yard) eventually(what string, f func() bool) {
	y.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if f() {
			return
		}
		select { // real processes: there is no clock to fake
		case <-y.t.Context().Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
	y.t.Fatalf("never: %s; %+v", what, y.m.List())
}

func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// folder makes a product folder whose program runs the given attempt.
func (y *yard) folder(name, version, attempt, more string) string {
	y.t.Helper()
	built, err := programs()
	if err != nil {
		y.t.Fatal(err)
	}
	dir := filepath.Join(y.base, "folders", name+"-"+version)
	words := strings.Fields(attempt)
	put(y.t, filepath.Join(dir, "probe"), built["probe"], 0o755)
	put(y.t, filepath.Join(dir, "manifest.toml"), fmt.Sprintf("name = %q\nversion = %q\n[run]\ncommand = [\"./probe\", \"%s\"]\n%s", name, version, strings.Join(words, `", "`), more), 0o644)
	return dir
}

func approve(product.Request) error { return nil }

func (y *yard) install(name, version, attempt, more string) product.View {
	y.t.Helper()
	v, err := y.m.Install(y.t.Context(), y.folder(name, version, attempt, more), approve)
	if err != nil {
		y.t.Fatal(err)
	}
	return v
}

func (y *yard) show(name string) product.View {
	y.t.Helper()
	v, err := y.m.Show(name)
	if err != nil {
		y.t.Fatal(err)
	}
	return v
}

func (y *yard) healthOf(component string) health.Entry {
	for _, e := range y.health.List() {
		if e.Component == component {
			return e
		}
	}
	return health.Entry{}
}

func (y *yard) logText(name string) string {
	y.t.Helper()
	var b strings.Builder
	if err := y.m.Logs(y.t.Context(), name, false, func(p []byte) error { b.Write(p); return nil }); err != nil {
		y.t.Fatal(err)
	}
	return b.String()
}
