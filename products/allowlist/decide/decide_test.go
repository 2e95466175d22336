package decide

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bailey/internal/leakcheck"
	"bailey/internal/roottest"
	"bailey/sdk"
	"bailey/sdk/sdktest"

	"github.com/google/go-cmp/cmp"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// machine is a root with a dpkg database that owns files of this test, and the product on it.
type machine struct {
	*sdktest.Agent
	d    *Decider
	dir  string // of the files asked about
	root string
	conf string // the policy file
}

const packagesOnly = "[[rule]]\nname = 'packages'\naction = 'allow'\npackage = ['*']\n"

type setup struct {
	policy   string
	settings map[string]string
	owned    map[string]string // file name → content that the package recorded
	idle     bool              // Run is not started
	busy     bool              // the database says that a package manager is at work
	state    string
}

func newMachine(t *testing.T, s setup) *machine {
	t.Helper()
	m := &machine{dir: t.TempDir(), root: t.TempDir()}
	m.conf = filepath.Join(m.root, "policy.toml")
	if s.policy == "" {
		s.policy = packagesOnly
	}
	write(t, m.conf, s.policy)
	m.record(t, s.owned)
	if s.busy {
		write(t, filepath.Join(m.root, "var/lib/dpkg/updates/0000"), "x")
	}
	var err error
	if m.d, err = New(Config{PolicyFile: m.conf, Root: m.root, State: s.state, Poll: 5 * time.Millisecond, Settle: 20 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if !s.idle {
		m.run(t)
	}
	m.Agent = sdktest.NewWith(t, m.d.Product(sdk.Exec, sdk.Open), sdktest.Options{Settings: s.settings})
	return m
}

func (m *machine) run(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- m.d.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	<-m.d.loaded
}

// record writes the database. Its times are old, so that no transaction seems to be going on.
func (m *machine) record(t *testing.T, owned map[string]string) {
	t.Helper()
	list, sums := "/.\n", ""
	for name, content := range owned {
		path := filepath.Join(m.dir, name)
		list += path + "\n"
		sums += md5Line([]byte(content), path[1:])
	}
	write(t, filepath.Join(m.root, "var/lib/dpkg/status"), "Package: tools\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n")
	write(t, filepath.Join(m.root, "var/lib/dpkg/info/tools.list"), list)
	write(t, filepath.Join(m.root, "var/lib/dpkg/info/tools.md5sums"), sums)
}

func md5Line(content []byte, path string) string {
	return fmt.Sprintf("%x  %s\n", md5.Sum(content), path)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// file writes a file to ask about and returns its path.
func (m *machine) file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(m.dir, name)
	write(t, path, content)
	return path
}

func asker(uid uint32) *sdk.Process {
	return &sdk.Process{Key: &sdk.ProcessKey{Pid: 42, Start: 1}, Parent: &sdk.ProcessKey{Pid: 41, Start: 1}, Comm: "bash",
		Executable: &sdk.File{Path: "/bin/bash"}, Credentials: &sdk.Credentials{Uid: uid}}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	roottest.Require(t, "files of packages belong to root")
	sum := sha256.Sum256([]byte("ours"))
	rules := packagesOnly + "[[rule]]\nname = 'ours'\naction = 'allow'\nsha256 = ['" + hex.EncodeToString(sum[:]) + "']\n" +
		"[[rule]]\nname = 'mine'\naction = 'allow'\nuid = [1000]\npath = ['/**/mine/*']\n"
	tests := map[string]struct {
		mode, name, content string
		mode2               os.FileMode
		uid                 uint32
		want                sdk.Answer
		rule, action, why   string // of the finding; empty: none
	}{
		"package_verified":      {mode: "lockdown", name: "tool", content: "tool", want: sdk.Allow.CacheFile()},
		"package_writable":      {mode: "lockdown", name: "tool", content: "tool", mode2: 0o777, want: sdk.Deny, rule: "default", action: sdk.Denied, why: "others than root may write it"},
		"package_changed":       {mode: "lockdown", name: "tool", content: "evil", want: sdk.Deny, rule: "default", action: sdk.Denied, why: "not what package tools recorded"},
		"package_changed_watch": {mode: "monitor", name: "tool", content: "evil", want: sdk.Allow, rule: "default", action: sdk.WouldDeny, why: "not what package tools recorded"},
		"unknown":               {mode: "lockdown", name: "x", content: "x", want: sdk.Deny, rule: "default", action: sdk.Denied, why: "no package owns it"},
		"unknown_watch":         {mode: "monitor", name: "x", content: "x", want: sdk.Allow, rule: "default", action: sdk.WouldDeny, why: "no package owns it"},
		"by_sha256":             {mode: "lockdown", name: "y", content: "ours", want: sdk.Allow.CacheFile()},
		"changed_but_by_sha256": {mode: "lockdown", name: "tool", content: "ours", want: sdk.Allow.CacheFile(), rule: ruleMismatch, action: sdk.Detected},
		"by_uid_and_path":       {mode: "lockdown", name: "mine/z", content: "z", uid: 1000, want: sdk.Allow},
		"by_path_not_uid":       {mode: "lockdown", name: "mine/z", content: "z", uid: 1001, want: sdk.Deny, rule: "default", action: sdk.Denied, why: "no package owns it"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, setup{policy: rules, settings: map[string]string{"mode": test.mode}, owned: map[string]string{"tool": "tool"}})
			m.settle(t)
			path := m.file(t, test.name, test.content)
			if test.mode2 != 0 {
				if err := os.Chmod(path, test.mode2); err != nil {
					t.Fatal(err)
				}
			}
			if got := m.Ask(sdk.Exec, asker(test.uid), path); got != test.want {
				t.Errorf("answer %v, want %v", got, test.want)
			}
			found := m.Findings()
			if test.rule == "" {
				if len(found) > 0 {
					t.Errorf("findings: %+v", found)
				}
				return
			}
			if len(found) != 1 || found[0].Rule != test.rule || found[0].Action != test.action || !strings.Contains(found[0].Fields["why"], test.why) {
				t.Fatalf("findings: %+v", found)
			}
			got := map[string]string{}
			for _, k := range []string{"path", "executable", "pid", "parent", "sha256"} {
				got[k] = found[0].Fields[k]
			}
			content := sha256.Sum256([]byte(test.content))
			want := map[string]string{"path": path, "executable": "/bin/bash", "pid": "42", "parent": "41", "sha256": hex.EncodeToString(content[:])}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
			if found[0].QuestionID == 0 || found[0].File.GetPath() != path {
				t.Errorf("the finding does not join the question: %+v", found[0])
			}
		})
	}
}

// settle waits until the package database counts as quiet: its fixture was written a moment ago.
func (m *machine) settle(t *testing.T) {
	t.Helper()
	m.eventually(t, "quiet package database", func() bool { return !m.d.db.InTransaction() })
}

func (m *machine) eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !done() {
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// TestTransaction: what the package manager has just written runs before the database knows it, and is not cached.
func TestTransaction(t *testing.T) {
	t.Parallel()
	roottest.Require(t, "files of packages belong to root")
	m := newMachine(t, setup{settings: map[string]string{"mode": "lockdown"}, owned: map[string]string{"tool": "old"}, busy: true})
	ask := func(name, path string) sdk.Answer {
		at := m.file(t, name, "new "+name)
		if path == "" {
			path = at
		}
		return m.AskQuestion(sdktest.Question{Kind: sdk.Exec, Process: asker(0), Path: at, File: &sdk.File{Path: path}})
	}
	for name, test := range map[string]struct {
		path string
		want sdk.Answer
	}{
		"tool":       {"", sdk.Allow},
		"brand-new":  {"/usr/bin/brand-new", sdk.Allow},
		"configure":  {"/tmp/openssh.config.a1b2c3", sdk.Allow},
		"not-theirs": {"", sdk.Deny},
	} {
		if got := ask(name, test.path); got != test.want {
			t.Errorf("%s during the transaction: %v, want %v", name, got, test.want)
		}
	}
	user := m.file(t, "users", "x")
	if err := os.Chown(user, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	if got := m.AskQuestion(sdktest.Question{Kind: sdk.Exec, Process: asker(1000), Path: user, File: &sdk.File{Path: "/usr/bin/users"}}); got != sdk.Deny {
		t.Errorf("a user's file during the transaction: %v", got)
	}
}

// TestUpgradeIsFollowed changes the database as an upgrade does: the new content is allowed, and the agent is told to
// forget what it cached.
func TestUpgradeIsFollowed(t *testing.T) {
	t.Parallel()
	roottest.Require(t, "files of packages belong to root")
	m := newMachine(t, setup{settings: map[string]string{"mode": "lockdown"}, owned: map[string]string{"tool": "old"}})
	m.settle(t)
	before := m.Subscription()
	path := m.file(t, "tool", "new")
	if got := m.Ask(sdk.Exec, asker(0), path); got != sdk.Deny {
		t.Errorf("before the database knows: %v", got)
	}
	m.record(t, map[string]string{"tool": "new"})
	m.eventually(t, "a new subscription", func() bool { return m.Subscription() != before })
	m.eventually(t, "a cached allow", func() bool { return m.Ask(sdk.Exec, asker(0), path) == sdk.Allow.CacheFile() })
}

// TestStart asks while the package database is not read: nothing is denied for that.
func TestStart(t *testing.T) {
	t.Parallel()
	m := newMachine(t, setup{settings: map[string]string{"mode": "lockdown"}, owned: map[string]string{"tool": "tool"}, idle: true})
	start := time.Now()
	got := m.AskQuestion(sdktest.Question{Kind: sdk.Exec, Path: m.file(t, "tool", "tool"), Deadline: 300 * time.Millisecond})
	if took := time.Since(start); got != sdk.Allow || took > 300*time.Millisecond+500*time.Millisecond {
		t.Errorf("%v after %v", got, took)
	}
	if f := m.WaitFindings(1); f[0].Rule != ruleUndecided || f[0].Action != sdk.Detected {
		t.Errorf("finding %+v", f[0])
	}
	strict := newMachine(t, setup{settings: map[string]string{"mode": "lockdown", "on_timeout": "deny"}, idle: true})
	if got := strict.AskQuestion(sdktest.Question{Kind: sdk.Exec, Path: strict.file(t, "tool", "tool"), Deadline: 100 * time.Millisecond}); got != sdk.Deny {
		t.Errorf("on_timeout = deny: %v", got)
	}
}

func TestNoDatabase(t *testing.T) {
	t.Parallel()
	m := newMachine(t, setup{settings: map[string]string{"mode": "lockdown"}, idle: true})
	if err := os.RemoveAll(filepath.Join(m.root, "var")); err != nil {
		t.Fatal(err)
	}
	m.run(t)
	if got := m.Ask(sdk.Exec, asker(0), m.file(t, "x", "x")); got != sdk.Allow {
		t.Errorf("without a package database: %v", got)
	}
	if f := m.WaitFindings(2); f[0].Rule != rulePackages || f[1].Rule != ruleUndecided {
		t.Errorf("findings %+v", f)
	}
}

// TestLargeFile asks about a file that takes longer than the deadline: more time is asked for; without it the policy's
// on_timeout counts, and the next question finds the work done.
func TestLargeFile(t *testing.T) {
	t.Parallel()
	roottest.Require(t, "files of packages belong to root")
	policy := "[[rule]]\nname = 'a'\naction = 'allow'\nsha256 = ['" + strings.Repeat("0", 64) + "']\n"
	m := newMachine(t, setup{settings: map[string]string{"mode": "lockdown", "max_extend": "0s"}, policy: policy})
	path := m.file(t, "large", "")
	if err := os.Truncate(path, 1<<30); err != nil { // a hole: reading it is work, storing it is not
		t.Fatal(err)
	}
	ask := func(d time.Duration) (sdk.Answer, time.Duration) {
		start := time.Now()
		a := m.AskQuestion(sdktest.Question{Kind: sdk.Exec, Path: path, Deadline: d})
		return a, time.Since(start)
	}
	const starved = 400 * time.Millisecond // how late a process may get the processor on a busy machine
	if got, took := ask(100 * time.Millisecond); got != sdk.Allow || took > 100*time.Millisecond+starved {
		t.Errorf("within 100 ms: %v after %v", got, took)
	}
	m.eventually(t, "the digest in the cache", func() bool { return m.d.digests.Stats().Late == 1 })
	if got, took := ask(time.Second); got != sdk.Deny {
		t.Errorf("the second time: %v after %v", got, took)
	}

	patient := newMachine(t, setup{settings: map[string]string{"mode": "lockdown", "max_extend": "9s"}, policy: policy})
	if err := os.Truncate(path, 64<<20); err != nil {
		t.Fatal(err)
	}
	p := patient.Begin(sdktest.Question{Kind: sdk.Exec, Path: path, Deadline: 50 * time.Millisecond})
	if got, ok := p.Wait(); !ok || got != sdk.Deny {
		t.Errorf("with more time: %v, %v", got, ok)
	}
	if p.Extended() == 0 {
		t.Error("it did not ask for more time")
	}
}

func TestOpenJudgesOnlyWhatRuns(t *testing.T) {
	t.Parallel()
	m := newMachine(t, setup{settings: map[string]string{"mode": "lockdown"}})
	for content, want := range map[string]sdk.Answer{
		"some data": sdk.Allow.CacheFile(), "": sdk.Allow.CacheFile(), "#!/bin/sh\n": sdk.Deny, "\x7fELF\x02": sdk.Deny,
	} {
		m.settle(t)
		if got := m.Ask(sdk.Open, asker(0), m.file(t, "f", content)); got != want {
			t.Errorf("open of %q: %v, want %v", content, got, want)
		}
	}
}

// TestWordsSayWhatCounts: a deny that cannot count is not called one.
func TestWordsSayWhatCounts(t *testing.T) {
	t.Parallel()
	m := newMachine(t, setup{settings: map[string]string{"mode": "lockdown"}})
	m.settle(t)
	if got := m.AskQuestion(sdktest.Question{Kind: sdk.Exec, Process: asker(0), Path: m.file(t, "x", "x"), Shadow: true}); got != sdk.Deny {
		t.Errorf("shadow: %v", got)
	}
	if f := m.WaitFindings(1); f[0].Action != sdk.WouldDeny {
		t.Errorf("a shadow deny is reported as %s", f[0].Action)
	}
}

func TestRepeatsAreCounted(t *testing.T) {
	t.Parallel()
	var r reporter
	now := time.Now()
	sent := 0
	for i := range 100 {
		if _, ok := r.admit(reportKey{rule: "a", ino: 1}, now.Add(time.Duration(i)*time.Millisecond)); ok {
			sent++
		}
	}
	if sent != reportBurst {
		t.Errorf("%d findings of 100 were sent, want %d", sent, reportBurst)
	}
	if _, ok := r.admit(reportKey{rule: "a", ino: 2}, now); !ok {
		t.Error("another file's finding was left out")
	}
	if n, ok := r.admit(reportKey{rule: "a", ino: 1}, now.Add(reportWindow)); !ok || n != 100-reportBurst {
		t.Errorf("after the window: %d left out, %v", n, ok)
	}
}
