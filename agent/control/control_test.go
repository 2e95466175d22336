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

	"bailey/agent/control"
	"bailey/agent/control/controltest"
	controlv1 "bailey/api/control/v1"
	"bailey/api/control/v1/client"
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
	a.http, a.client = client.HTTP(a.path), client.New(a.path)
	t.Cleanup(func() {
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
		controlv1.URL+"/bailey.control.v1.ControlService/Status").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{`"boot_id":"00000000-`, `"by_reason":{"cache":"5","products":"7"}`, `"in_flight":"0"`} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("%s lacks %s", out, want)
		}
	}
}

// TestMetricsThroughSocket: a scraper's plain GET, and nothing where nobody measures.
func TestMetricsThroughSocket(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		adjust func(*control.Config)
		status int
	}{
		{"served", nil, http.StatusOK},
		{"none", func(cfg *control.Config) { cfg.Metrics = nil }, http.StatusNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := run(t, c.adjust)
			r, err := a.http.Get(controlv1.URL + "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			if r.StatusCode != c.status {
				t.Errorf("status %d, want %d", r.StatusCode, c.status)
			}
		})
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
			r, err := a.http.Post(controlv1.URL+"/bailey.control.v1.ControlService/"+c.method, "application/json", strings.NewReader(c.body))
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
	client := controlv1connect.NewControlServiceClient(nobody, controlv1.URL)
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
