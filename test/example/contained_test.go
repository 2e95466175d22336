// Package example_test runs the SDK's examples as an operator's machine would: their manifests are read by the agent's own
// parser and the Python one runs inside the real containment. The agent's verdicts are not part of it.
package example_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"bailey/agent/product/contain"
	"bailey/agent/product/manifest"
	"bailey/internal/roottest"
	"bailey/sdk"
	"bailey/sdk/sdktest"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "contain" {
		os.Exit(contain.Main(contain.SpecFD))
	}
	os.Exit(m.Run())
}

const examples = "../../sdk/examples"

func TestManifestsAreAccepted(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"hello", "python"} {
		m, err := manifest.Load(filepath.Join(examples, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !m.Request.Deny || len(m.Request.Decide) != 1 {
			t.Errorf("%s requests %+v", name, m.Request)
		}
	}
}

// The interpreter, its modules and libraries must all be in what the manifest asks to read, and the descriptor of a file
// that only root may read must be enough to judge it.
func TestPythonExampleInContainment(t *testing.T) {
	roottest.Require(t, "makes namespaces")
	m, err := manifest.Load(filepath.Join(examples, "python"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/usr/lib/python3/dist-packages/google/protobuf"); err != nil {
		roottest.Unavailable(t, "needs python3-protobuf: apt-get install python3-protobuf")
	}
	spec := specOf(t, m)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithCancel(context.Background())
	spawner, spawned := contain.NewSpawner(), make(chan struct{})
	go func() { defer close(spawned); spawner.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-spawned })

	a := sdktest.NewProcess(t, m.Name, sdktest.Options{Settings: m.Settings, Timeout: 30 * time.Second}, func(ctx context.Context, fd int) error {
		sock := os.NewFile(uintptr(fd), "socket")
		p, err := spawner.Start(spec, contain.Options{Socket: sock, Stdout: log, Stderr: log})
		_ = sock.Close()
		if err != nil {
			return err
		}
		unhook := context.AfterFunc(ctx, p.Kill)
		defer unhook()
		<-p.Done()
		if e := p.Exit(); e.Code != 0 {
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("it exited with %d: %s", e.Code, text)
		}
		return nil
	})
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("x"+m.Settings["forbidden"]), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := a.Ask(sdk.Exec, nil, bad); !got.Denied() {
		t.Errorf("a root-only file with the forbidden string: %v", got)
	}
	if got := a.Ask(sdk.Exec, nil, "/bin/true"); got.Denied() {
		t.Errorf("/bin/true: %v", got)
	}
	if err := a.Stop(); err != nil {
		t.Error(err)
	}
}

// specOf puts the example into directories as the agent would, owned by an unprivileged user.
func specOf(t *testing.T, m *manifest.Manifest) contain.Spec {
	t.Helper()
	const uid = 61_234
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	spec := contain.Spec{
		Name: m.Name, Root: filepath.Join(dir, "root"), Release: filepath.Join(dir, "release"), State: filepath.Join(dir, "state"),
		Read: m.Run.Read, Command: m.Run.Command, Env: []string{"PATH=/usr/bin:/bin", "STATE_DIRECTORY=" + contain.StateDir},
		UID: uid, TmpBytes: 8 << 20, FileBytes: 8 << 20, Pids: m.Limits.Pids, Files: m.Limits.Files,
	}
	for _, d := range []string{spec.Root, spec.State} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(spec.State, uid, uid); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(spec.Release, os.DirFS(filepath.Join(examples, "python"))); err != nil {
		t.Fatal(err)
	}
	return spec
}
