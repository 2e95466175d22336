package contain_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/product/cgroup"
	"bailey/agent/product/contain"
	"bailey/internal/roottest"
)

const testUID = 1_900_012_345

// build makes the program that is product and helper, once per run; TestMain removes it. Where there is no go command, as in
// a test machine, it was built beside its source.
var build = sync.OnceValues(func() (string, error) {
	if _, err := exec.LookPath("go"); err != nil {
		return filepath.Abs("testdata/hostile/hostile")
	}
	out := filepath.Join(buildDir, "hostile")
	cmd := exec.Command("go", "build", "-o", out, "./testdata/hostile")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the hostile product: %w: %s", err, text)
	}
	return out, nil
})

var buildDir string

func TestMain(m *testing.M) {
	var err error
	if buildDir, err = os.MkdirTemp("", "bailey-contain"); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := os.RemoveAll(buildDir); err != nil {
		panic(err)
	}
	os.Exit(code)
}

// arena is one contained product with everything it needs.
type arena struct {
	t       testing.TB
	spawner *contain.Spawner
	helper  string
	group   *cgroup.Group
	spec    contain.Spec
	socket  *os.File // the agent's end
	out     string   // file with stdout and stderr
}

func newArena(t testing.TB, limits cgroup.Limits) *arena {
	t.Helper()
	roottest.Require(t, "namespaces, users and control groups")
	built, err := build()
	if err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	a := &arena{t: t, helper: filepath.Join(base, "helper"), spawner: contain.NewSpawner(), out: filepath.Join(base, "out")}
	a.spec = contain.Spec{
		Name: "probe", Root: filepath.Join(base, "root"), Release: filepath.Join(base, "release"), State: filepath.Join(base, "state"),
		Env: []string{"STATE_DIRECTORY=/state", "PATH=/product"}, UID: testUID, TmpBytes: 5 << 20, FileBytes: 4 << 20, Pids: 64, Files: 64,
	}
	for _, d := range []string{a.spec.Root, a.spec.Release, a.spec.State} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(built)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(a.spec.Release, "probe"), string(program), 0o755)
	write(t, a.helper, string(program), 0o755)
	if err := os.Chown(a.spec.State, testUID, testUID); err != nil {
		t.Fatal(err)
	}
	tree, missing, err := cgroup.Open(fmt.Sprintf("bailey-contain-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	if len(missing) > 0 {
		t.Logf("not limited here: %v", missing)
	}
	if a.group, err = tree.Create("probe", limits); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { a.spawner.Run(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		<-done
		for _, err := range []error{a.group.Kill(), a.group.Remove(), tree.Close()} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	return a
}

func write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func (a *arena) start(command ...string) *contain.Process {
	a.t.Helper()
	a.spec.Command = append([]string{"./probe"}, command...)
	p, err := a.tryStart()
	if err != nil {
		b, _ := os.ReadFile(a.out)
		a.t.Fatalf("start: %v\n%s", err, b)
	}
	return p
}

func (a *arena) tryStart() (*contain.Process, error) {
	a.t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		a.t.Fatal(err)
	}
	inner := os.NewFile(uintptr(pair[1]), "product socket")
	defer func() { _ = inner.Close() }()
	a.socket = os.NewFile(uintptr(pair[0]), "agent socket")
	a.t.Cleanup(func() { _ = a.socket.Close() })
	out, err := os.Create(a.out)
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	return a.spawner.Start(a.spec, contain.Options{Helper: []string{a.helper}, Group: a.group, Socket: inner, Stdout: out, Stderr: out})
}

func (a *arena) wait(p *contain.Process) contain.Exit {
	a.t.Helper()
	select {
	case <-p.Done():
	case <-time.After(time.Minute):
		p.Kill()
		a.t.Fatal("the product did not end")
	}
	return p.Exit()
}

func (a *arena) output() string {
	a.t.Helper()
	b, err := os.ReadFile(a.out)
	if err != nil {
		a.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// run runs one attempt inside the containment and returns what it printed.
func (a *arena) run(command ...string) (string, contain.Exit) {
	a.t.Helper()
	p := a.start(command...)
	for _, n := range p.Notes() {
		a.t.Logf("note: %s: %s", n.Component, n.Summary)
	}
	exit := a.wait(p)
	return a.output(), exit
}

// runPlan runs every step in one containment.
func (a *arena) runPlan(plan []planStep) map[string]string {
	a.t.Helper()
	b, err := json.Marshal(plan)
	if err != nil {
		a.t.Fatal(err)
	}
	write(a.t, filepath.Join(a.spec.Release, "plan.json"), string(b), 0o644)
	out, exit := a.run("batch")
	if exit.Code != 0 {
		a.t.Fatalf("batch ended with %+v: %s", exit, out)
	}
	b, err = os.ReadFile(filepath.Join(a.spec.State, "results.json"))
	if err != nil {
		a.t.Fatal(err)
	}
	results := make(map[string]string)
	if err := json.Unmarshal(b, &results); err != nil {
		a.t.Fatal(err)
	}
	return results
}

type planStep struct {
	Row  string   `json:"row"`
	Args []string `json:"args"`
}

func TestIdentity(t *testing.T) {
	a := newArena(t, cgroup.Limits{Memory: 128 << 20, Pids: 64, CPU: 1})
	out, exit := a.run("identity")
	want := fmt.Sprintf("ok: Uid: %d %d %d %d; Gid: %d %d %d %d; Groups:; CapPrm: 0000000000000000; CapEff: 0000000000000000; CapBnd: 0000000000000000; CapAmb: 0000000000000000; NoNewPrivs: 1; Seccomp: 2",
		testUID, testUID, testUID, testUID, testUID, testUID, testUID, testUID)
	if out != want || exit.Code != 0 {
		t.Errorf("got  %s %+v\nwant %s", out, exit, want)
	}
}
