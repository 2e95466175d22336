package control_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"bailey/agent/control"
	"bailey/agent/control/controltest"
	"bailey/agent/event"
	controlv1 "bailey/api/control/v1"
	"bailey/api/control/v1/controlv1connect"
	"bailey/internal/leakcheck"
	"bailey/internal/roottest"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// agent is a served controltest.Agent with a client.
type agent struct {
	*controltest.Agent
	client controlv1connect.ControlServiceClient
	http   *http.Client
	path   string
	stop   func() error
}

// run starts an agent in a short directory of its own, because a socket's path is bounded.
func run(t testing.TB, adjust func(*control.Config)) *agent {
	t.Helper()
	a := &agent{Agent: controltest.New()}
	cfg := a.Config(shortDir(t))
	cfg.Log = slog.New(slog.DiscardHandler)
	if adjust != nil {
		adjust(&cfg)
	}
	s, err := control.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	a.path = s.Path()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	a.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	a.http = httpClient(func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", a.path)
	})
	a.client = controlv1connect.NewControlServiceClient(a.http, "http://bailey")
	t.Cleanup(func() {
		a.http.CloseIdleConnections()
		if err := a.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return a
}

func httpClient(dial func(context.Context) (net.Conn, error)) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}}
}

func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestStatusThroughSocket(t *testing.T) {
	t.Parallel()
	a := run(t, nil)
	r, err := a.client.Status(t.Context(), connect.NewRequest(&controlv1.StatusRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if r.Msg.GetPid() != uint32(os.Getpid()) || r.Msg.GetQuestions().GetByReason()["cache"] != 5 {
		t.Errorf("got %v", r.Msg)
	}
	info, err := os.Stat(a.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v, %v; want 0600", info.Mode(), err)
	}
}

// TestCurl uses the tool an operator would; the JSON has the .proto's names and its zeros.
func TestCurl(t *testing.T) {
	t.Parallel()
	curl, err := exec.LookPath("curl")
	if err != nil {
		roottest.Unavailable(t, "curl is not installed")
	}
	a := run(t, nil)
	out, err := exec.Command(curl, "-sS", "--unix-socket", a.path, "-H", "Content-Type: application/json", "-d", "{}",
		"http://bailey/bailey.control.v1.ControlService/Status").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{`"boot_id":"00000000-`, `"by_reason":{"cache":"5","products":"7"}`, `"in_flight":"0"`} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("%s lacks %s", out, want)
		}
	}
}

func TestBadInputIsNamed(t *testing.T) {
	t.Parallel()
	a := run(t, nil)
	for name, c := range map[string]struct {
		method, body string
		status       int
		want         string
	}{
		"not_json":        {"Status", "{", 400, "invalid_argument"},
		"unknown_field":   {"ProductShow", `{"nam":"x"}`, 400, `unknown field \"nam\"`},
		"unknown_method":  {"Reboot", "{}", 404, "404"},
		"bad_name":        {"ProductShow", `{"name":"../etc"}`, 400, `\"../etc\" is not a product's name`},
		"relative_path":   {"ProductPlan", `{"path":"x"}`, 400, "absolute"},
		"nothing_granted": {"ProductGrant", `{"name":"x"}`, 400, "no grant is named"},
		"nothing_set":     {"ProductSet", `{"name":"x"}`, 400, "no setting is named"},
		"not_approved":    {"ProductInstall", `{"path":"/x"}`, 400, "approved is empty"},
		"unknown_product": {"ProductShow", `{"name":"x"}`, 404, "no product is called"},
		"too_large":       {"ProductShow", `{"name":"` + strings.Repeat("x", 2<<20) + `"}`, 429, "larger than configured max"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := a.http.Post("http://bailey/bailey.control.v1.ControlService/"+c.method, "application/json", strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			if r.StatusCode != c.status || !strings.Contains(string(body), c.want) {
				t.Errorf("got %d %s, want %d with %q", r.StatusCode, body, c.status, c.want)
			}
		})
	}
}

func TestErrorCarriesHint(t *testing.T) {
	t.Parallel()
	a := run(t, nil)
	_, err := a.client.ProductStart(t.Context(), connect.NewRequest(&controlv1.ProductStartRequest{Name: "absent"}))
	var ce *connect.Error
	if !errors.As(err, &ce) || ce.Code() != connect.CodeNotFound || len(ce.Details()) != 1 {
		t.Fatalf("got %v", err)
	}
	value, err := ce.Details()[0].Value()
	if err != nil {
		t.Fatal(err)
	}
	if h, ok := value.(*controlv1.ErrorHint); !ok || !strings.Contains(h.GetHint(), "bailey product list") {
		t.Errorf("got %v", value)
	}
}

// TestInstallTakesOnlyWhatWasShown changes the folder between the plan and the approval.
func TestInstallTakesOnlyWhatWasShown(t *testing.T) {
	t.Parallel()
	a := run(t, nil)
	dir := filepath.Join(t.TempDir(), "guard")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "manifest.toml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	plan, err := a.client.ProductPlan(t.Context(), connect.NewRequest(&controlv1.ProductPlanRequest{Path: dir}))
	if err != nil {
		t.Fatal(err)
	}
	install := func() error {
		_, err := a.client.ProductInstall(t.Context(), connect.NewRequest(&controlv1.ProductInstallRequest{Path: dir, Approved: plan.Msg.GetHash()}))
		return err
	}
	write("two")
	if err := install(); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("a changed folder: got %v", err)
	}
	write("one")
	if err := install(); err != nil {
		t.Errorf("the approved folder: %v", err)
	}
}

// TestOtherUsersAreRefused connects as another uid: first the socket's mode refuses it, then, when somebody opened the mode, the
// peer's credentials do.
func TestOtherUsersAreRefused(t *testing.T) {
	roottest.Require(t, "another uid's connection is made")
	a := run(t, nil)
	nobody := httpClient(func(context.Context) (net.Conn, error) { return dialAs(65534, a.path) })
	defer nobody.CloseIdleConnections()
	client := controlv1connect.NewControlServiceClient(nobody, "http://bailey")
	status := func() error {
		_, err := client.Status(t.Context(), connect.NewRequest(&controlv1.StatusRequest{}))
		return err
	}
	if err := os.Chmod(filepath.Dir(a.path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := status(); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("with mode 0600: got %v", err)
	}
	if err := os.Chmod(a.path, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := status(); connect.CodeOf(err) != connect.CodePermissionDenied || !strings.Contains(err.Error(), "serves root only, and this is uid 65534") {
		t.Errorf("with mode 0666: got %v", err)
	}
}

// dialAs connects from a thread whose uid is another one; the thread ends with its goroutine, because it is never unlocked.
func dialAs(uid int, path string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		conn, err := func() (net.Conn, error) {
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
				return nil, fmt.Errorf("become uid %d: %w", uid, errno)
			}
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			f := os.NewFile(uintptr(fd), "peer")
			defer f.Close()
			if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
				return nil, err
			}
			return net.FileConn(f)
		}()
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

func exec1(seq uint64) *event.Event {
	return &event.Event{Kind: event.Exec, Seq: seq, Process: &event.Process{Key: event.ProcessKey{PID: 7, Start: 70}, Comm: "ls"}, Exec: &event.ExecDetail{Argv: []string{"ls"}}}
}

// tap opens an event stream and waits until it is in place.
func (a *agent) tap(t *testing.T, r *controlv1.EventsRequest) *connect.ServerStreamForClient[controlv1.EventsResponse] {
	t.Helper()
	s, err := a.client.Events(t.Context(), connect.NewRequest(r))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if !s.Receive() || s.Msg().GetEvent() != nil {
		t.Fatalf("no first response: %v %v", s.Msg(), s.Err())
	}
	return s
}

func TestEventsAreFilteredAndCarryAncestors(t *testing.T) {
	t.Parallel()
	a := run(t, nil)
	a.SetAncestors(event.ProcessKey{PID: 7, Start: 70}, &event.Process{Comm: "bash"}, &event.Process{Comm: "sshd"})
	s := a.tap(t, &controlv1.EventsRequest{Kinds: []string{"exec", "finding"}, Ancestors: true, Products: []string{"mine"}})
	a.Emit(&event.Event{Kind: event.Fork, Seq: 1})
	a.Emit(&event.Event{Kind: event.Finding, Seq: 2, Finding: &event.FindingDetail{Product: "other"}})
	a.Emit(&event.Event{Kind: event.Finding, Seq: 3, Finding: &event.FindingDetail{Product: "mine"}})
	a.Emit(exec1(4))
	a.End()
	var got []string
	for s.Receive() {
		line := fmt.Sprint(s.Msg().GetEvent().GetSeq())
		for _, p := range s.Msg().GetAncestors() {
			line += " < " + p.GetComm()
		}
		got = append(got, line)
	}
	if s.Err() != nil || strings.Join(got, ", ") != "3, 4 < bash < sshd" {
		t.Errorf("got %q, %v", got, s.Err())
	}
}

func TestEventsEndAfterTheTimeAskedFor(t *testing.T) {
	t.Parallel()
	a := run(t, nil)
	s := a.tap(t, &controlv1.EventsRequest{For: uint64(50 * time.Millisecond)})
	if s.Receive() || s.Err() != nil {
		t.Errorf("got %v, %v", s.Msg(), s.Err())
	}
}

func TestUnknownKindIsNamed(t *testing.T) {
	t.Parallel()
	a := run(t, nil)
	s, err := a.client.Events(t.Context(), connect.NewRequest(&controlv1.EventsRequest{Kinds: []string{"exce"}}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Receive() || connect.CodeOf(s.Err()) != connect.CodeInvalidArgument || !strings.Contains(s.Err().Error(), `"exce"; known: exec,`) {
		t.Errorf("got %v", s.Err())
	}
}

// TestSlowReaderLosesEventsAndIsTold never reads until many more events were emitted than all buffers on the way hold; emitting
// never waits, and what arrives with what is announced as lost is everything.
func TestSlowReaderLosesEventsAndIsTold(t *testing.T) {
	t.Parallel()
	a := run(t, nil)
	s := a.tap(t, &controlv1.EventsRequest{})
	const emitted = 20_000
	e := exec1(1)
	e.Exec.Argv = []string{strings.Repeat("x", 1000)}
	start := time.Now()
	for range emitted {
		a.Emit(e)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("emitting took %v", took)
	}
	var seen, lost uint64
	last := false
	for !last && s.Receive() {
		seen++
		lost += s.Msg().GetLost()
		if seen == 1 { // now that it reads, mark the end; repeated because a full queue would drop it
			go func() {
				for tick := time.NewTicker(time.Millisecond); a.Taps() > 0; <-tick.C {
					a.Emit(&event.Event{Kind: event.Exit, Seq: 99})
				}
			}()
		}
		last = s.Msg().GetEvent().GetSeq() == 99
	}
	if lost == 0 || seen-1+lost < emitted {
		t.Errorf("seen %d, lost %d of %d: %v", seen-1, lost, emitted, s.Err())
	}
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	a := run(t, func(c *control.Config) { c.MaxStreams = 1 })
	first := a.tap(t, &controlv1.EventsRequest{})
	s, err := a.client.Events(t.Context(), connect.NewRequest(&controlv1.EventsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Receive() || connect.CodeOf(s.Err()) != connect.CodeResourceExhausted {
		t.Errorf("a second stream: got %v", s.Err())
	}
	a.End()
	for first.Receive() {
	}
	a.tap(t, &controlv1.EventsRequest{}) // the place is free again
}

// TestStopEndsStreams stops the server with a tap and a log open; both end with "the agent is stopping".
func TestStopEndsStreams(t *testing.T) {
	t.Parallel()
	a := run(t, nil)
	s := a.tap(t, &controlv1.EventsRequest{})
	start := time.Now()
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("stopping took %v", took)
	}
	if s.Receive() || connect.CodeOf(s.Err()) != connect.CodeUnavailable {
		t.Errorf("got %v", s.Err())
	}
	if a.Taps() != 0 {
		t.Errorf("%d taps left", a.Taps())
	}
	if _, err := os.Stat(a.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	a := run(t, nil)
	dir := filepath.Join(t.TempDir(), "guard")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "manifest.toml"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	plan, err := a.Products.Plan(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Products.Install(t.Context(), dir, plan.GetHash()); err != nil {
		t.Fatal(err)
	}
	s, err := a.client.ProductLogs(t.Context(), connect.NewRequest(&controlv1.ProductLogsRequest{Name: "guard"}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var text string
	for s.Receive() {
		text += string(s.Msg().GetData())
	}
	if text != "started\nready\n" || s.Err() != nil {
		t.Errorf("got %q, %v", text, s.Err())
	}
}

// TestPanicIsOneRequestsError: a nil backend panics in the request, and the next request is served.
func TestPanicIsOneRequestsError(t *testing.T) {
	t.Parallel()
	a := run(t, func(c *control.Config) { c.Cache = nil })
	_, err := a.client.CacheShow(t.Context(), connect.NewRequest(&controlv1.CacheShowRequest{}))
	if connect.CodeOf(err) != connect.CodeInternal {
		t.Errorf("got %v", err)
	}
	if _, err := a.client.Status(t.Context(), connect.NewRequest(&controlv1.StatusRequest{})); err != nil {
		t.Errorf("the next request: %v", err)
	}
}
