// Package python_test runs the Python example as a process over a real socketpair. The example itself has no Go.
package python_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"bailey/internal/roottest"
	"bailey/sdk"
	"bailey/sdk/sdktest"
)

const interpreter = "/usr/bin/python3"

const forbidden = "NEVER-RUN-THIS"

// output is a bytes.Buffer for a process and a test at once.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func startExample(t *testing.T, stream bool) (*sdktest.Agent, *output) {
	t.Helper()
	if out, err := exec.Command(interpreter, "-c", "import google.protobuf").CombinedOutput(); err != nil {
		roottest.Unavailable(t, fmt.Sprintf("needs python3-protobuf (apt-get install python3-protobuf): %v %s", err, out))
	}
	stderr := new(output)
	o := sdktest.Options{Stream: stream, Settings: map[string]string{"forbidden": forbidden}}
	a := sdktest.NewProcess(t, "python-example", o, func(ctx context.Context, fd int) error {
		sock := os.NewFile(uintptr(fd), "socket")
		defer sock.Close()
		cmd := exec.CommandContext(ctx, interpreter, "-B", "product.py")
		cmd.ExtraFiles = []*os.File{sock}
		cmd.Stderr = stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%w: %s", err, stderr)
		}
		return nil
	})
	return a, stderr
}

func TestPythonExample(t *testing.T) {
	t.Parallel()
	for name, stream := range map[string]bool{"seqpacket": false, "stream": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, stderr := startExample(t, stream)
			if got := a.AskContent(sdk.Exec, nil, "clean", []byte("#!/bin/sh\n")); got != sdk.Allow.CacheFile() {
				t.Errorf("clean file: %v", got)
			}
			across := bytes.Repeat([]byte{'x'}, 256<<10-5) // the string lies across two reads
			across = append(across, forbidden...)
			path := filepath.Join(t.TempDir(), "bad")
			if err := os.WriteFile(path, across, 0o700); err != nil {
				t.Fatal(err)
			}
			if got := a.Ask(sdk.Exec, nil, path); got != sdk.Deny.CacheFile() {
				t.Errorf("forbidden file: %v", got)
			}
			f := a.Findings()
			if len(f) != 1 || f[0].QuestionID != 2 || f[0].Action != sdk.Denied || f[0].File.GetPath() != path {
				t.Errorf("findings: %+v", f)
			}
			if got := a.AskQuestion(sdktest.Question{Kind: sdk.Exec, File: &sdk.File{Path: "/gone"}}); got.Denied() {
				t.Errorf("no descriptor: %v", got)
			}
			a.AskQuestion(sdktest.Question{Kind: sdk.Exec, Path: path, Shadow: true})
			if f := a.Findings(); len(f) != 2 || f[1].Action != sdk.WouldDeny {
				t.Errorf("shadow: %+v", f)
			}
			events := make([]*sdk.Event, 200) // more than the window: it must acknowledge
			for i := range events {
				events[i] = &sdk.Event{Kind: sdk.Exec, Process: &sdk.Process{Comm: "x"}}
			}
			a.Emit(events...)
			a.Lose(3, "full")
			a.SetAuthority("degraded", "late")
			a.SendUnknown(50)
			many := make([]*sdktest.Pending, 30)
			for i := range many {
				many[i] = a.Begin(sdktest.Question{Kind: sdk.Exec, Path: path})
			}
			many[29].Withdraw()
			for i, p := range many[:29] {
				if got, ok := p.Wait(); !ok || !got.Denied() {
					t.Errorf("question %d of many: %v %t", i, got, ok)
				}
			}
			for range 20 { // questions that nobody waits for
				a.Begin(sdktest.Question{Kind: sdk.Exec, Path: path})
			}
			a.EmitOnly(events[0])
			a.Resume()
			a.Lose(2, "agent_restart")
			a.Resume()
			if got := a.Ask(sdk.Exec, nil, path); !got.Denied() {
				t.Errorf("after Resume: %v", got)
			}
			a.Emit(events[:70]...)
			if err := a.Stop(); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"lost events 201 to 203: full", "authority degraded: late", "resumed by agent sdktest", "lost events 205 to 206: agent_restart", "stopped after 271 exec events"} {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("its log does not say %q:\n%s", want, stderr)
				}
			}
			if u := a.Unsupported(); len(u) != 1 || u[0] != 50 {
				t.Errorf("unsupported: %v", u)
			}
		})
	}
}
