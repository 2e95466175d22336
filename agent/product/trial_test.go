package product_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bailey/agent/product"
)

// staged lists what is left of releases that were not installed.
func (y *yard) staged() []string {
	left, err := filepath.Glob(filepath.Join(y.base, "state", "products", ".*"))
	if err != nil {
		y.t.Fatal(err)
	}
	return left
}

func (y *yard) try(version, attempt string) *product.Trial {
	y.t.Helper()
	tr, err := y.m.Try(y.folder("lab", version, attempt, ""), newHost(), approve)
	if err != nil {
		y.t.Fatal(err)
	}
	return tr
}

// A release is tried beside the installed one, which does not notice: on a copy of its state, at idle priority, as another user.
func TestTrial(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	live := y.install("lab", "1", "sleep", "")
	state := filepath.Join(filepath.Dir(filepath.Dir(live.Folder)), "state")
	put(t, filepath.Join(state, "deep", "notes"), "remembered", 0o600)
	if err := errors.Join(os.Symlink("/etc/shadow", filepath.Join(state, "link")), unix.Mkfifo(filepath.Join(state, "fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}

	reads := y.try("2", "read /state/deep/notes")
	<-reads.Done()
	if text := reads.Log(4096); !strings.Contains(text, "remembered") || !strings.Contains(reads.Reason(), "exited with status 0") {
		t.Errorf("it ended with %q and wrote %q", reads.Reason(), text)
	}
	if note := reads.Note(); !strings.Contains(note, "2 links") {
		t.Errorf("what it did not get is said to be %q", note)
	}
	if err := reads.Close(); err != nil {
		t.Error(err)
	}

	sleeps := y.try("3", "sleep")
	if _, err := y.m.Try(y.folder("lab", "4", "sleep", ""), newHost(), approve); !errors.Is(err, product.ErrBusy) {
		t.Errorf("another one at the same time: %v", err)
	}
	if !strings.HasPrefix(sleeps.Request.Release, "3-") || sleeps.Request.Installed != live.Release {
		t.Errorf("it is %+v", sleeps.Request)
	}
	sleeps.Stop()
	if err := sleeps.Close(); err != nil {
		t.Error(err)
	}

	if v := y.show("lab"); v.Release != live.Release || v.Status.PID != live.Status.PID || v.Status.Restarts != 0 {
		t.Errorf("the installed one was %+v and is %+v", live, v)
	}
	if left := y.staged(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A release that can test itself does so before anything else, contained, on a copy of the state. What it finds is why it is not tried any further.
func TestTrial_tests_itself(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	live := y.install("lab", "1", "sleep", "")
	put(t, filepath.Join(filepath.Dir(filepath.Dir(live.Folder)), "state", "notes"), "remembered", 0o600)
	try := func(version, test string) (log string, err error) {
		tr, err := y.m.Try(y.folder("lab", version, "sleep", "self_test = [\"./probe\", "+test+"]\n"), newHost(), approve)
		if err != nil {
			return "", err
		}
		tr.Stop()
		return tr.Log(4096), tr.Close()
	}

	var self *product.SelfTestError
	if _, err := try("2", `"exit", "3"`); !errors.As(err, &self) || self.Reason != "exited with status 3" || !strings.HasPrefix(self.Release, "2-") {
		t.Errorf("a self-test that fails: %v", err)
	}
	if _, err := try("3", `"crash"`); !errors.As(err, &self) || !strings.Contains(self.Log, "goroutine") {
		t.Errorf("a self-test that crashes: %v, it said %q", err, self.Log)
	}
	if log, err := try("4", `"read", "/state/notes"`); err != nil || !strings.Contains(log, "remembered") {
		t.Errorf("a self-test that is content wrote %q: %v", log, err)
	}
	if v := y.show("lab"); v.Release != live.Release || v.Status.PID != live.Status.PID {
		t.Errorf("the installed one was %+v and is %+v", live, v)
	}
	if left := y.staged(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A trial that is started once more is another process, with another host, on what the first one left.
func TestTrial_again(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	first, second := newHost(), newHost()
	tr, err := y.m.Try(y.folder("lab", "1", "sleep", ""), first, approve)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(tr.Folder(), "manifest.toml")); err != nil {
		t.Error(err)
	}
	left := filepath.Join(filepath.Dir(filepath.Dir(tr.Folder())), "state", "left")
	put(t, left, "by the first", 0o600)
	if err := tr.Again(second); err != nil {
		t.Fatal(err)
	}
	if len(second.instances) != 1 || second.instances[0].PID == first.instances[0].PID {
		t.Errorf("it is %+v, before it was %+v", second.instances, first.instances)
	}
	if text, err := os.ReadFile(left); err != nil || string(text) != "by the first" {
		t.Errorf("its state is %q, %v", text, err)
	}
	select {
	case <-tr.Done():
		t.Errorf("it %s", tr.Reason())
	default:
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	if left := y.staged(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestTrial_gives_way_to_everybody(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	h := newHost()
	tr, err := y.m.Try(y.folder("lab", "1", "sleep", ""), h, approve)
	if err != nil {
		t.Fatal(err)
	}
	inst, _ := h.last("lab")
	for _, pid := range []int{inst.PID, inst.Init} {
		attr, err := unix.SchedGetAttr(pid, 0)
		if err != nil || attr.Policy != unix.SCHED_IDLE {
			t.Errorf("pid %d is scheduled as %+v, %v", pid, attr, err)
		}
	}
	if y.m.List() != nil {
		t.Error("what is tried is listed as installed")
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
}

// The end of the agent ends what is being tried, and waits until it is cleared away.
func TestTrial_ends_with_the_agent(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	tr := y.try("1", "stubborn")
	closed := make(chan error, 1)
	go func() {
		<-tr.Done()
		closed <- tr.Close()
	}()
	y.stop()
	if left := y.staged(); len(left) > 0 { // the manager waited for Close
		t.Errorf("left behind: %v", left)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, err := y.m.Try(y.folder("lab", "2", "sleep", ""), newHost(), approve); err == nil {
		t.Error("a manager that has ended tries a release")
	}
}

func TestTrial_needs_an_approval(t *testing.T) {
	y := newYard(t, nil)
	y.run()
	no := errors.New("no")
	if _, err := y.m.Try(y.folder("lab", "1", "sleep", ""), newHost(), func(product.Request) error { return no }); !errors.Is(err, no) {
		t.Errorf("declined: %v", err)
	}
	tr := y.try("1", "sleep") // the place is free again
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	if left := y.staged(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
