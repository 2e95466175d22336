package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bailey/test/rig"

	"golang.org/x/sys/unix"
)

// fetcher finds the process of an agent that fetches.
func fetcher(a *rig.Agent) (pid int, status string, err error) {
	mine := filepath.Join(a.Built, "bailey") + "\x00fetch-updates\x00"
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, "", err
	}
	for _, path := range lines {
		text, err := os.ReadFile(path)
		if err != nil || string(text) != mine {
			continue
		}
		dir := filepath.Dir(path)
		root, rerr := os.Stat(filepath.Join(dir, "root/state"))
		state, serr := os.Stat(filepath.Join(a.Dir, "state/update/fetch"))
		if rerr != nil || serr != nil || !os.SameFile(root, state) { // another agent's
			continue
		}
		st, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		return pid, string(st), err
	}
	return 0, "", errors.New("no process fetches")
}

// TestUpdatesFromAWebServer: a process without any privilege reads what comes from the network. It dies, and what it does not bring is all that is
// missed; with the agent it ends.
func TestUpdatesFromAWebServer(t *testing.T) {
	const stream, content = "acme/engine/content", "content"
	a, v := followed(t, "", "shadow = \"1s\"\nwatch = \"1s\"", engine("1.0.0", goodContent, nil), "engine/content")
	evil := a.Program("evil")

	v.Content("engine", "1", goodContent+"prefix "+evil+"\n")
	reaches(a, content, "1", "committed")
	if err := execs(evil); !denied(err) {
		t.Errorf("what the new content denies: %v", err)
	}

	pid, status, err := fetcher(a)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, want+"\n") {
			t.Errorf("its status has no %q: %s", want, status)
		}
	}
	uid := fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", 1_900_000_000+1022)
	if !strings.Contains(status, uid) {
		t.Errorf("its status has no %q: %s", uid, status)
	}
	for _, path := range []string{"etc/shadow", "root", "home", "var", a.Dir} {
		if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid), "root", path)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it sees %s: %v", path, err)
		}
	}
	for line := range strings.Lines(status) {
		if strings.HasPrefix(line, "VmRSS") {
			t.Log(strings.TrimSpace(line))
		}
	}

	// It dies, and the next look has another.
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	a.Eventually("it is gone", 10*time.Second, func() error {
		if now, _, err := fetcher(a); err == nil && now == pid {
			return errors.New("it is there")
		}
		return nil
	})
	a.Must("update", "check")
	a.Eventually("the look that it died in is seen", 30*time.Second, func() error {
		if out := a.Must("update", "list", "--json"); !strings.Contains(out, `"problem":"the process that fetches did not do it`) {
			return errors.New(out)
		}
		return nil
	})
	a.Running("engine")
	v.Content("engine", "2", goodContent)
	reaches(a, content, "2", "committed")
	if now, _, err := fetcher(a); err != nil || now == pid {
		t.Errorf("it is %d, %v, and was %d", now, err, pid)
	}
	if err := execs(evil); err != nil {
		t.Errorf("what the new content does not deny: %v", err)
	}

	if text := a.Must("update", "plan", stream); !strings.Contains(text, "the newest is installed") {
		t.Errorf("the plan says %s", text)
	}
	a.Stop()
	if now, _, err := fetcher(a); err == nil {
		t.Errorf("%d is left", now)
	}
}
