package file

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/internal/pathname"
	"bailey/internal/roottest"
)

// below makes a sensor of "every file system" see only those mounted below dir.
func below(dir string) func(*Config) {
	return func(c *Config) {
		c.Watch = nil
		c.only = func(point string) bool { return pathname.Below(point, dir) }
		c.RescanEvery = 200 * time.Millisecond
	}
}

func mkdir(t testing.TB, path string) string {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// asked waits until opening path is asked about.
func (r *rig) asksAbout(sub *proc, path string) {
	r.t.Helper()
	eventually(r.t, path+" is asked about", func() bool {
		before := r.asked(event.Open)
		sub.do("open", path)
		return r.asked(event.Open) > before
	})
}

func TestMountsThatAppearLater(t *testing.T) {
	r := newRig(t, "", func(c *Config) { below(filepath.Dir(c.Watch[0]))(c); c.RescanEvery = time.Hour })
	r.answer(allow)
	r.s.SetOpenScope([]string{"/"})
	r.s.SetQuestions(true, true)
	later := mkdir(t, filepath.Join(r.dir, "later"))
	mountAt(t, "tmpfs", "later", later, "size=1m")
	path := filepath.Join(later, "f")
	if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	r.asksAbout(startSubject(t), path)
}

// A mount that takes the place, the id and the device number of the last one must be marked all the same.
func TestMountThatReplacesAnother(t *testing.T) {
	r := newRig(t, "", func(c *Config) { below(filepath.Dir(c.Watch[0]))(c) })
	r.answer(allow)
	r.s.SetOpenScope([]string{"/"})
	r.s.SetQuestions(false, true)
	at := mkdir(t, filepath.Join(r.dir, "at"))
	sub := startSubject(t)
	for range 20 {
		if err := unix.Mount("x", at, "tmpfs", 0, "size=1m"); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(at, "f")
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		r.asksAbout(sub, path)
		eventually(t, "unmount", func() bool { return unix.Unmount(at, 0) == nil })
	}
}

func TestBindMountIsAsked(t *testing.T) {
	r := newRig(t, "")
	r.answer(allow)
	r.s.SetOpenScope([]string{"/"})
	r.s.SetQuestions(false, true)
	r.file("d/f")
	at := t.TempDir()
	if err := unix.Mount(filepath.Join(r.dir, "d"), at, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	// The question's descriptor is closed just after its answer, so the first try may find it open.
	defer eventually(t, "unmount", func() bool { return unix.Unmount(at, 0) == nil })
	startSubject(t).do("open", filepath.Join(at, "f"))
	if n := r.asked(event.Open); n != 1 {
		t.Errorf("asked %d times about an open through a bind mount", n)
	}
}

// A container: a new mount namespace, an overlay as its root. It is asked about like anybody else.
func TestOverlayInAnotherMountNamespace(t *testing.T) {
	r := newRig(t, "", func(c *Config) { below(c.Watch[0])(c); c.RescanEvery = time.Hour })
	r.answer(allow)
	for _, d := range []string{"lower/bin", "upper", "work", "merged"} {
		mkdir(t, filepath.Join(r.dir, d))
	}
	r.binary("lower/bin/tool")
	r.s.SetOpenScope([]string{"/"})
	r.s.SetQuestions(true, true)
	sub := startSubject(t)
	sub.do("unshare")
	merged := filepath.Join(r.dir, "merged")
	opts := "lowerdir=" + filepath.Join(r.dir, "lower") + ",upperdir=" + filepath.Join(r.dir, "upper") + ",workdir=" + filepath.Join(r.dir, "work")
	sub.do("mount", "overlay", "overlay", merged, opts)
	r.s.Rescan()
	eventually(t, "the overlay is marked", func() bool { return r.s.Stats().Superblocks == 2 })
	sub.do("pivot", merged)
	paths := make(chan string, 8)
	r.answer(func(q *event.Question) {
		if q.Kind == event.Exec {
			paths <- q.File.Path
		}
		allowCached(q)
	})
	sub.do("exec", "/bin/tool")
	// The file below may be asked about too, in the opener's name: whether an overlay's own opens are seen depends on the
	// kernel.
	seen := map[string]bool{}
	for len(paths) > 0 {
		seen[<-paths] = true
	}
	if !seen["/bin/tool"] {
		t.Errorf("asked about %v, want /bin/tool as the container sees it", seen)
	}
	r.answer(deny)
	if err := r.s.FlushCache(); err != nil {
		t.Fatal(err)
	}
	if errno, _ := sub.try("exec", "/bin/tool"); errno != unix.EPERM {
		t.Errorf("exec in the container: %v, want EPERM", errno)
	}
}

// F11: file systems come and go all the time. Nothing we hold may make an umount fail, and questions go on.
func TestMountStorm(t *testing.T) {
	r := newRig(t, "", func(c *Config) { below(filepath.Dir(c.Watch[0]))(c) })
	r.answer(allow)
	r.s.SetOpenScope([]string{"/"})
	r.s.SetEvents(event.KindsOf(event.Create, event.CloseWrite))
	r.s.SetQuestions(true, true)
	path := r.file("f")
	for _, d := range []string{"storm", "lower", "upper", "work"} {
		mkdir(t, filepath.Join(r.dir, d))
	}
	at := filepath.Join(r.dir, "storm")
	opts := "lowerdir=" + filepath.Join(r.dir, "lower") + ",upperdir=" + filepath.Join(r.dir, "upper") + ",workdir=" + filepath.Join(r.dir, "work")

	opener, mounter := startSubject(t), startSubject(t)
	stop := make(chan struct{})
	opened := make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				opened <- n
				return
			default:
				opener.do("openmany", path, "10")
				n += 10
			}
		}
	}()
	busy := 0
	for i := range 200 {
		if i%2 == 0 {
			mounter.do("mount", "tmpfs", "storm", at, "size=1m")
		} else {
			mounter.do("mount", "overlay", "storm", at, opts)
		}
		mounter.do("create", filepath.Join(at, "f"))
		mounter.do("unlink", filepath.Join(at, "f"))
		if umount(t, mounter, at) {
			busy++
		}
	}
	close(stop)
	n := <-opened
	st := r.s.Stats()
	t.Logf("200 mounts and unmounts, %d of them busy at first, %d opens, %d scans, superblocks %d", busy, n, st.Scans, st.Superblocks)
	if got := r.asked(event.Open); got < int64(n) {
		t.Errorf("%d opens, asked %d times", n, got)
	}
	// Looking up a mount that has just appeared holds it for some microseconds: an umount in that moment fails once.
	if busy > 20 {
		t.Errorf("%d of 200 umounts found the file system busy", busy)
	}
	eventually(t, "the marks are gone", func() bool { return r.s.Stats().Superblocks == 1 })
}

// With thousands of events still to resolve, unmounting works: handles are resolved on a private copy of the mount.
func TestUnmountWithEventsPending(t *testing.T) {
	r := newRig(t, "", func(c *Config) { below(filepath.Dir(c.Watch[0]))(c) })
	r.s.SetEvents(event.KindsOf(event.Create, event.CloseWrite))
	at := mkdir(t, filepath.Join(r.dir, "at"))
	sub := startSubject(t)
	busy := 0
	for range 10 {
		sub.do("mount", "tmpfs", "x", at, "size=16m")
		eventually(t, "it is marked", func() bool { return r.s.Stats().Superblocks == 2 })
		sub.do("creates", at, "2000")
		if umount(t, sub, at) {
			busy++
		}
		eventually(t, "the copy is let go", func() bool { return r.s.Stats().Superblocks == 1 })
	}
	t.Logf("%d of 10 unmounts found the file system busy at first", busy)
	if busy > 3 {
		t.Errorf("%d of 10 unmounts found the file system busy", busy)
	}
}

// umount tries until it works, and reports whether the file system was busy at first. How often it was tried says how fast this
// machine spins, and nothing about how long it was busy.
func umount(t *testing.T, s *proc, at string) (busy bool) {
	t.Helper()
	for {
		errno, _ := s.try("umount", at)
		switch errno {
		case 0:
			return busy
		case unix.EBUSY:
			busy = true
		default:
			t.Fatalf("umount: %v", errno)
		}
	}
}

func TestOpenMarksOnlyWhereTheScopeIs(t *testing.T) {
	r := newRig(t, "", func(c *Config) { below(filepath.Dir(c.Watch[0]))(c) })
	r.answer(allow)
	other := mkdir(t, filepath.Join(r.dir, "other"))
	mountAt(t, "tmpfs", "other", other, "size=1m")
	path, in := filepath.Join(other, "f"), r.file("in/f")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r.s.SetOpenScope([]string{filepath.Join(r.dir, "in")})
	r.s.SetQuestions(false, true)
	sub := startSubject(t)
	sub.do("open", path)
	if n := r.s.Stats().Read; n != 0 {
		t.Errorf("an open on a file system without scope reached the reader: %d", n)
	}
	sub.do("open", in)
	if n := r.asked(event.Open); n != 1 {
		t.Errorf("asked %d times in the scope", n)
	}
}

func TestWatchMustNameMountPoints(t *testing.T) {
	roottest.Require(t, "creating a fanotify group needs CAP_SYS_ADMIN")
	dir := scratch(t)
	sub := mkdir(t, filepath.Join(dir, "sub"))
	bind := t.TempDir()
	if err := unix.Mount(sub, bind, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(bind, 0) }()
	procs := &testProcesses{}
	for _, c := range []struct{ watch, want string }{
		{sub, "is not a mount point"}, {bind, "only /sub of its file system is mounted there"}, {"/proc", "cannot be watched"},
	} {
		_, err := New(Config{Watch: []string{c.watch}, Processes: procs, Identity: procs, Ask: allow, Emit: func(*event.Event) {}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("watch %s: %v, want %q", c.watch, err, c.want)
		}
	}
}

// The kernel opens an overlay's file below while we read the question about it, which asks us again. The group of its own
// keeps that from being a deadlock; for a stack upon a stack the substitutes do.
func TestStackedFileSystems(t *testing.T) {
	for _, c := range []struct {
		name  string
		depth int
	}{{"overlay", 1}, {"overlay_on_overlay", 2}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, "", func(cfg *Config) { below(cfg.Watch[0])(cfg) })
			r.answer(allow)
			lower := mkdir(t, filepath.Join(r.dir, "lower"))
			r.file("lower/f")
			empty := mkdir(t, filepath.Join(r.dir, "empty"))
			for i := range c.depth {
				at := mkdir(t, filepath.Join(r.dir, "at"+string(rune('0'+i))))
				mountAt(t, "overlay", "overlay", at, "lowerdir="+lower+":"+empty)
				lower = at
			}
			r.s.SetOpenScope([]string{"/"})
			r.s.SetQuestions(true, true)
			eventually(t, "all are marked", func() bool { return r.s.Stats().Superblocks == c.depth+1 })
			sub := startSubject(t)
			took := sub.do("openmany", filepath.Join(lower, "f"), "20")
			st := r.s.Stats()
			t.Logf("20 opens in %v, %d questions, %d exempt, %d rescues", took, st.Asked, st.Exempt, st.Rescues)
			if c.depth == 1 && st.Rescues != 0 {
				t.Errorf("an ordinary overlay needed %d rescues", st.Rescues)
			}
			if st.Asked < 20 {
				t.Errorf("asked %d times", st.Asked)
			}
			r.stop()
		})
	}
}
