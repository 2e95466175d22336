package critical

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bailey/agent/event"
	"bailey/agent/health"

	"golang.org/x/sys/unix"
)

// identify describes a file as a sensor does.
func identify(t testing.TB, root, name string) *event.File {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(root, name), &st); err != nil {
		t.Fatalf("stat %s: %v", name, err)
	}
	return &event.File{Path: name, Dev: st.Dev, Ino: st.Ino, CTime: st.Ctim.Nano(), MTime: st.Mtim.Nano(), Size: st.Size, Mode: st.Mode, UID: st.Uid, GID: st.Gid}
}

func realName(t testing.TB, name string) string {
	t.Helper()
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		t.Skipf("no %s here", name)
	}
	return real
}

// TestThisMachine computes the set of the system that the test runs on.
func TestThisMachine(t *testing.T) {
	t.Parallel()
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Contains(identify(t, "/", realName(t, "/bin/sh"))) {
		t.Error("the set was not computed and has a file")
	}
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", s.Stats())
	tests := map[string]struct {
		path string
		want bool
	}{
		"shell":              {"/bin/sh", true},
		"bash":               {"/bin/bash", true},
		"libc":               {"/lib/x86_64-linux-gnu/libc.so.6", true},
		"loader":             {"/lib64/ld-linux-x86-64.so.2", true},
		"package_manager":    {"/usr/bin/dpkg", true},
		"its_library":        {"/usr/lib/x86_64-linux-gnu/libapt-pkg.so.6.0", true},
		"pid_1":              {"/proc/1/exe", true},
		"accounts":           {"/etc/passwd", true},
		"compiler":           {"/usr/bin/gcc", false},
		"scanner":            {"/usr/sbin/clamd", false},
		"test_itself":        {"/proc/self/exe", false},
		"documentation_only": {"/usr/share/doc/dash/copyright", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := realName(t, test.path)
			if got := s.Contains(identify(t, "/", path)); got != test.want {
				t.Errorf("Contains(%s) = %v, want %v", path, got, test.want)
			}
		})
	}
}

// fixture is a root with a shell script as init, a package and a tree of a product.
func fixture(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	files := map[string]string{
		"usr/sbin/init":                         "#!/usr/bin/dash\n",
		"usr/bin/dash":                          "shell",
		"usr/share/doc/dash/copyright":          "words",
		"usr/lib/dash/helper":                   "helper",
		"usr/bin/other":                         "other",
		"etc/passwd":                            "root",
		"var/lib/bailey/products/a/bin/product": "product",
		"proc/modules":                          "",
		"var/lib/dpkg/status":                   "Package: dash\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\nPackage: other\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n",
		"var/lib/dpkg/info/dash.list":           "/.\n/bin\n/bin/dash\n/usr\n/usr/lib\n/usr/lib/dash\n/usr/lib/dash/helper\n/usr/share\n/usr/share/doc\n/usr/share/doc/dash\n/usr/share/doc/dash/copyright\n",
		"var/lib/dpkg/info/other.list":          "/.\n/usr/bin/other\n",
	}
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "sbin"} {
		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func newFixture(t *testing.T, root string, registry *health.Registry) *Set {
	t.Helper()
	s, err := New(Config{
		Root: root, Proc: filepath.Join(root, "proc"), Platform: []string{"/var/lib/bailey"}, Extra: []string{"/usr/bin/absent"}, Health: registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContains(t *testing.T) {
	t.Parallel()
	root := fixture(t)
	s := newFixture(t, root, nil)
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		path   string
		change func(f *event.File)
		want   bool
	}{
		"init":                            {"/usr/sbin/init", nil, true},
		"its_interpreter":                 {"/usr/bin/dash", nil, true},
		"file_of_the_interpreter_package": {"/usr/lib/dash/helper", nil, true},
		"documentation":                   {"/usr/share/doc/dash/copyright", nil, false},
		"other_package":                   {"/usr/bin/other", nil, false},
		"product":                         {"/var/lib/bailey/products/a/bin/product", nil, true},
		"another_name":                    {"/usr/bin/dash", func(f *event.File) { f.Path = "/elsewhere" }, true},
		"name_unknown":                    {"/usr/bin/dash", func(f *event.File) { f.Path = "" }, true},
		"replaced_by_root":                {"/usr/bin/dash", func(f *event.File) { f.Ino++; f.UID = 0 }, true},
		"replaced_by_a_user":              {"/usr/bin/dash", func(f *event.File) { f.Ino++; f.UID = 1000 }, false},
		"replaced_and_writable":           {"/usr/bin/dash", func(f *event.File) { f.Ino++; f.UID, f.Mode = 0, f.Mode|0o020 }, false},
		"inode_used_again":                {"/usr/bin/dash", func(f *event.File) { f.CTime++; f.Path = "/tmp/x" }, false},
		"same_name_in_a_container":        {"/usr/bin/dash", func(f *event.File) { f.Dev++; f.UID = 0 }, false},
		"same_tree_in_a_container":        {"/var/lib/bailey/products/a/bin/product", func(f *event.File) { f.Dev++ }, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := identify(t, root, test.path)
			if test.change != nil {
				test.change(f)
			}
			if got := s.Contains(f); got != test.want {
				t.Errorf("Contains(%+v) = %v, want %v", f, got, test.want)
			}
		})
	}
	if s.Contains(nil) {
		t.Error("nothing is critical")
	}
}

// TestRunFollowsPackages installs a library into the interpreter's package while the set is watched.
func TestRunFollowsPackages(t *testing.T) {
	t.Parallel()
	root := fixture(t)
	registry := health.NewRegistry()
	s := newFixture(t, root, registry)
	var told atomic.Int32
	s.cfg.OnChange = func() { told.Add(1) }
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	<-s.Tried()
	if s.Stats().Computed.IsZero() {
		t.Error("the set was said to be tried before it was computed")
	}

	added := filepath.Join(root, "usr/lib/dash/new")
	if err := os.WriteFile(added, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(root, "var/lib/dpkg/info/dash.list")
	old, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(list+"-new", append(old, "/usr/lib/dash/new\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(list+"-new", list); err != nil {
		t.Fatal(err)
	}
	f := identify(t, root, "/usr/lib/dash/new")
	eventually(t, "the new file of the package in the set", func() bool { return s.Contains(f) })
	eventually(t, "the word that the set changed", func() bool { return told.Load() > 0 })
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if got := registry.Worst(); got != health.OK {
		t.Errorf("health is %v: %+v", got, registry.List())
	}
}

func eventually(t *testing.T, what string, done func() bool) {
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

func TestWithoutPackages(t *testing.T) {
	t.Parallel()
	root := fixture(t)
	if err := os.RemoveAll(filepath.Join(root, "var/lib/dpkg")); err != nil {
		t.Fatal(err)
	}
	registry := health.NewRegistry()
	s := newFixture(t, root, registry)
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !s.Contains(identify(t, root, "/usr/bin/dash")) {
		t.Error("the interpreter of init is not in the set")
	}
	if got := registry.Worst(); got != health.Degraded {
		t.Errorf("health is %v without a package database", got)
	}
}

func TestNewRefusesTheRoot(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"/", "relative", "/.."} {
		if _, err := New(Config{Extra: []string{bad}}); err == nil {
			t.Errorf("New took %q", bad)
		}
	}
}

// TestAgreesWithLdd compares the libraries found for a program with those that the loader would take.
func TestAgreesWithLdd(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("ldd"); err != nil {
		t.Skip("no ldd here")
	}
	const program = "/usr/bin/apt"
	out, err := exec.Command("ldd", realName(t, program)).Output()
	if err != nil {
		t.Skip("ldd does not know " + program)
	}
	c := newCollector(Config{Root: "/", Proc: "/proc"}, nil)
	c.libDirs = c.librarySearchPath()
	c.addProgram(program)
	for len(c.programs) > 0 {
		name := c.programs[0]
		c.programs = c.programs[1:]
		c.addLibraries(name)
	}
	n := 0
	for _, word := range strings.Fields(string(out)) {
		if word[0] != '/' {
			continue
		}
		n++
		if real := realName(t, word); !c.seen[real] {
			t.Errorf("the loader takes %s, the set does not have it", real)
		}
	}
	if n < 3 {
		t.Errorf("ldd named %d libraries", n)
	}
}

func BenchmarkContains(b *testing.B) {
	s, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Refresh(b.Context()); err != nil {
		b.Fatal(err)
	}
	f := identify(b, "/", "/usr/bin/gcc")
	b.ReportAllocs()
	for b.Loop() {
		if s.Contains(f) {
			b.Fatal("gcc is not critical")
		}
	}
}
