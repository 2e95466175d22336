package critical_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bailey/agent/critical"
	"bailey/agent/event"
	"bailey/agent/verdict"
	"bailey/internal/roottest"

	"golang.org/x/sys/unix"
)

// denier is an electorate of one product that denies whatever it is asked, at once.
type denier struct {
	engine *verdict.Engine
	voters event.Voters
}

func (d *denier) Voters(*event.Question) (*event.Voters, event.ProductSet) {
	return &d.voters, ^event.ProductSet(0)
}

func (d *denier) Send(_ *event.Voters, q *event.Question, to, _ event.ProductSet, _ uint64, _ bool) (full, gone event.ProductSet) {
	id := q.ID
	if d.engine.Answer(0, id, true, true) != nil {
		return 0, to
	}
	return 0, 0
}

func (d *denier) Withdraw(*event.Voters, uint64, event.ProductSet) {}

// opener remembers the verdict of one question.
type opener struct{ given event.Decision }

func (o *opener) Answer(_ *event.Question, d event.Decision) { o.given = d }
func (o *opener) Release(*event.Question)                    {}

// asked is what the kernel would get for a file that a product denies, and what became of the deny.
type asked struct {
	engine *verdict.Engine
	last   event.Denial
}

func newAsked(t *testing.T, s *critical.Set, denyCritical bool) *asked {
	t.Helper()
	d := &denier{voters: event.Voters{Live: 1, MayDeny: 1}}
	d.voters.Names[0] = "mad"
	if denyCritical {
		d.voters.MayDenyCritical = 1
	}
	a := &asked{}
	e, err := verdict.New(verdict.Config{
		Electorate: d, Now: func() uint64 { return uint64(time.Now().UnixNano()) }, Critical: s.Contains, NoCache: true,
		OnDeny: func(x event.Denial) { a.last = x },
	})
	if err != nil {
		t.Fatal(err)
	}
	d.engine, a.engine = e, e
	return a
}

// about asks about a real file and returns whether it was allowed.
func (a *asked) about(t *testing.T, path string) bool {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatalf("stat %s: %v", path, err)
	}
	o := &opener{}
	q := new(event.Question)
	q.Reset()
	q.Kind, q.Source = event.Exec, o
	q.File = event.File{
		Path: path, Dev: st.Dev, Ino: st.Ino, CTime: st.Ctim.Nano(), MTime: st.Mtim.Nano(), Size: st.Size, Mode: st.Mode, UID: st.Uid, GID: st.Gid,
	}
	a.engine.Ask(q)
	if !q.Answered() {
		t.Fatalf("the question about %s is not answered", path)
	}
	return o.given.Allow
}

// realPath follows links; empty where there is no such file.
func realPath(path string) string {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	return real
}

// filesOf lists the regular files of the packages as the real dpkg tells them.
func filesOf(t *testing.T, packages ...string) []string {
	t.Helper()
	out, err := exec.Command("dpkg", append([]string{"-L"}, packages...)...).Output()
	if err != nil {
		t.Fatalf("dpkg -L %v: %v", packages, err)
	}
	seen, list := map[string]bool{}, []string(nil)
	for _, line := range strings.Fields(string(out)) {
		real := realPath(line)
		var st unix.Stat_t
		if real == "" || seen[real] || unix.Lstat(real, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		seen[real] = true
		list = append(list, real)
	}
	return list
}

func needDpkg(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("dpkg"); err != nil {
		roottest.Unavailable(t, "this machine has no dpkg")
	}
}

func newReal(t *testing.T, platform ...string) *critical.Set {
	t.Helper()
	s, err := critical.New(critical.Config{Platform: platform})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestNothingThatDpkgCallsEssentialCanBeDenied asks about the files of this machine's own packages, as dpkg lists them, with
// a product that denies everything.
func TestNothingThatDpkgCallsEssentialCanBeDenied(t *testing.T) {
	t.Parallel()
	needDpkg(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	own := filepath.Join(state, "products", "mad", "releases", "1", "product")
	other := filepath.Join(state, "products", "other", "releases", "1", "product")
	for _, p := range []string{own, other} {
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("x"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := newReal(t, state, self)
	a := newAsked(t, s, false)
	must := func(path string) {
		t.Helper()
		if !a.about(t, path) {
			t.Errorf("%s was denied", path)
		}
		if a.last.Fate != event.DenyCritical || a.last.Product != "mad" || a.last.File.Path != path {
			t.Errorf("%s: the deny is told as %+v", path, a.last)
		}
	}

	out, err := exec.Command("dpkg-query", "-W", "-f", "${Essential} ${Priority} ${db:Status-Status} ${binary:Package}\n").Output()
	if err != nil {
		t.Fatalf("dpkg-query: %v", err)
	}
	var packages []string
	for line := range strings.Lines(string(out)) {
		if w := strings.Fields(line); len(w) == 4 && w[2] == "installed" && (w[0] == "yes" || w[1] == "required") {
			packages = append(packages, w[3])
		}
	}
	n := 0
	for _, path := range filesOf(t, packages...) {
		ballast := false
		for _, dir := range []string{"/usr/share/doc/", "/usr/share/man/", "/usr/share/info/", "/usr/share/locale/", "/usr/share/lintian/", "/usr/share/bug/", "/usr/include/", "/usr/src/"} {
			ballast = ballast || strings.HasPrefix(path, dir)
		}
		if !ballast {
			must(path)
			n++
		}
	}
	t.Logf("%d files of %d packages that dpkg calls essential or required", n, len(packages))
	if n < 200 {
		t.Errorf("only %d files were tried", n)
	}
	// The parts that a package manager needs to repair the machine, how it is logged in to, and the platform itself.
	for _, path := range []string{
		"/usr/bin/dpkg", "/usr/bin/dpkg-deb", "/usr/bin/apt", "/usr/bin/apt-get", "/bin/sh", "/bin/bash", "/usr/bin/perl",
		"/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6", "/sbin/init", "/usr/sbin/sshd", "/bin/login", "/proc/1/exe",
	} {
		if real := realPath(path); real != "" {
			must(real)
		}
	}
	for _, path := range []string{self, own, other} {
		must(path)
	}
	if s := a.engine.Stats().Products; len(s) != 0 && s[0].Critical == 0 {
		t.Errorf("counted %+v", s)
	}

	// With the operator's grant it is another matter; and what is no part of the set is denied as ever.
	if newAsked(t, s, true).about(t, realPath("/bin/sh")) {
		t.Error("a product with deny_critical could not deny the shell")
	}
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if a.about(t, plain) || a.last.Fate != event.DenyStood {
		t.Error("a file that nobody needs was not denied")
	}
}

// TestMaintainerScriptsHaveWhatInterpretsThem finds the interpreters of the scripts that this machine's dpkg would run.
func TestMaintainerScriptsHaveWhatInterpretsThem(t *testing.T) {
	t.Parallel()
	needDpkg(t)
	scripts, err := filepath.Glob("/var/lib/dpkg/info/*.p[or][se]*")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no maintainer scripts: %v", err)
	}
	a := newAsked(t, newReal(t), false)
	interpreters := map[string]int{}
	for _, path := range scripts {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		line, _, _ := strings.Cut(string(text), "\n")
		if words := strings.Fields(strings.TrimPrefix(line, "#!")); strings.HasPrefix(line, "#!") && len(words) > 0 {
			interpreters[realPath(words[0])]++
		}
	}
	for path, n := range interpreters {
		if path == "" {
			continue
		}
		if !a.about(t, path) {
			t.Errorf("%s, which %d maintainer scripts need, was denied", path, n)
		}
	}
	t.Logf("%v", interpreters)
}

// TestOwnedAgreesWithDpkg holds Owned against what the real dpkg says of the same files.
func TestOwnedAgreesWithDpkg(t *testing.T) {
	t.Parallel()
	needDpkg(t)
	s := newReal(t)
	file := func(path string) *event.File {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatalf("stat %s: %v", path, err)
		}
		return &event.File{Path: path, Dev: st.Dev, Ino: st.Ino, Mode: st.Mode, UID: st.Uid}
	}
	n := 0
	for _, path := range filesOf(t, "coreutils", "dpkg", "bash", "perl-base") {
		f := file(path)
		if f.UID != 0 || f.Mode&0o022 != 0 {
			continue
		}
		n++
		if owned, known := s.Owned(f); !owned || !known {
			t.Errorf("%s: owned %v, known %v", path, owned, known)
		}
	}
	if n < 100 {
		t.Errorf("only %d files were tried", n)
	}
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	f := file(realPath("/bin/sh"))
	theirs, unnamed, nobodys := *f, *f, *file(plain)
	theirs.UID, unnamed.Path = 1000, ""
	nobodys.UID, nobodys.Mode = 0, 0o100755
	for name, test := range map[string]struct {
		f            event.File
		owned, known bool
	}{
		"same_name_of_a_user": {theirs, false, true}, "name_unknown": {unnamed, false, false}, "nobodys": {nobodys, false, true},
	} {
		if owned, known := s.Owned(&test.f); owned != test.owned || known != test.known {
			t.Errorf("%s: owned %v, known %v", name, owned, known)
		}
	}
	empty, err := critical.New(critical.Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if owned, known := empty.Owned(f); owned || known {
		t.Errorf("without a package database: owned %v, known %v", owned, known)
	}
}

func BenchmarkOwned(b *testing.B) {
	s, err := critical.New(critical.Config{})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Refresh(b.Context()); err != nil {
		b.Fatal(err)
	}
	f := &event.File{Path: "/opt/nobody/knows", Mode: 0o100755}
	b.ReportAllocs()
	for b.Loop() {
		s.Owned(f)
	}
}
