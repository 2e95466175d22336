package file

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
)

var allEvents = event.KindsOf(event.Create, event.CloseWrite, event.Rename, event.Unlink, event.Attrib)

func TestFileEvents(t *testing.T) {
	for _, fs := range []struct {
		name string
		make func(testing.TB) string
	}{{"tmpfs", scratch}, {"ext4", func(t testing.TB) string { return scratchExt4(t) }}} {
		t.Run(fs.name, func(t *testing.T) {
			r := newRig(t, fs.make(t))
			r.s.SetEvents(allEvents)
			sub := startSubject(t)
			d := filepath.Join(r.dir, "d")
			a, b := filepath.Join(d, "a"), filepath.Join(r.dir, "b")
			sub.do("mkdir", d)
			if e := r.event(event.Create, d); e.File.File.Mode&unix.S_IFMT != unix.S_IFDIR {
				t.Errorf("mkdir: mode %o", e.File.File.Mode)
			}
			sub.do("create", a)
			created := r.event(event.Create, a)
			closed := r.event(event.CloseWrite, a)
			var st unix.Stat_t
			if err := unix.Stat(a, &st); err != nil {
				t.Fatal(err)
			}
			for _, e := range []*event.Event{created, closed} {
				if e.File.File.Ino != st.Ino || e.File.File.Dev != st.Dev || e.Process == nil || e.Process.Key.PID != sub.pid() || e.Time == 0 {
					t.Errorf("%v: %+v by %+v", e.Kind, e.File, e.Process)
				}
			}
			if closed.File.File.Size != 1 {
				t.Errorf("close_write: size %d", closed.File.File.Size)
			}
			sub.do("chmod", a)
			if e := r.event(event.Attrib, a); e.File.File.Mode&0o777 != 0o755 {
				t.Errorf("attrib: mode %o", e.File.File.Mode)
			}
			sub.do("rename", a, b)
			if e := r.event(event.Rename, b); e.File.From != a || e.File.File.Ino != st.Ino {
				t.Errorf("rename: %+v", e.File)
			}
			sub.do("unlink", b)
			if e := r.event(event.Unlink, b); !e.File.File.Deleted {
				t.Errorf("unlink: %+v", e.File)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, e := range r.events {
				if e.File.File.Path == "" {
					t.Errorf("an event without a path: %v %+v", e.Kind, e.File)
				}
			}
		})
	}
}

// rm -r: when its events are read the directory is gone; its path is remembered from before.
func TestEventsInADirectoryThatIsGone(t *testing.T) {
	r := newRig(t, "")
	r.s.SetEvents(event.KindsOf(event.Create, event.Unlink))
	sub := startSubject(t)
	d := filepath.Join(r.dir, "d")
	sub.do("mkdir", d)
	sub.do("create", filepath.Join(d, "f"))
	r.event(event.Create, filepath.Join(d, "f"))
	gate := make(chan struct{})
	// Hold the notifier so that the directory is surely gone when its next event is resolved.
	r.mu.Lock()
	go func() {
		sub.do("create", filepath.Join(r.dir, "hold"))
		sub.do("unlink", filepath.Join(d, "f"))
		sub.do("rmdir", d)
		r.mu.Unlock()
		close(gate)
	}()
	<-gate
	r.event(event.Unlink, filepath.Join(d, "f"))
	r.event(event.Unlink, d)
}

func TestOwnEventsAreNotTold(t *testing.T) {
	r := newRig(t, "")
	r.s.SetEvents(allEvents)
	if err := os.WriteFile(filepath.Join(r.dir, "own"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	sub := startSubject(t)
	theirs := filepath.Join(r.dir, "theirs")
	sub.do("create", theirs)
	r.event(event.CloseWrite, theirs)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.File.File.Path != theirs {
			t.Errorf("told %v on %s", e.Kind, e.File.File.Path)
		}
	}
	if r.s.Stats().EventsOwn == 0 {
		t.Error("own events are not counted")
	}
}

func TestOnlyWantedKindsAreTold(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{"/"})
	r.s.SetQuestions(true, true) // the cache needs close_write for itself
	r.s.SetEvents(event.KindsOf(event.Unlink))
	sub := startSubject(t)
	p := filepath.Join(r.dir, "f")
	sub.do("create", p)
	sub.do("chmod", p)
	sub.do("unlink", p)
	r.event(event.Unlink, p)
	r.s.SetEvents(0)
	sub.do("create", p)
	sub.do("unlink", p)
	<-time.After(20 * time.Millisecond)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) != 1 {
		t.Errorf("told %d events, want the one unlink", len(r.events))
	}
}

// queueLimit is how many events the notify group keeps; the kernel merges the events of one file, so it takes as many files.
func queueLimit(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/fs/fanotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A lost event may be the one that would have dropped a verdict: an overflow drops all, and is an alarm.
func TestOverflowDropsTheCacheAndIsReported(t *testing.T) {
	r := newRig(t, "")
	r.s.SetOpenScope([]string{r.dir})
	r.s.SetEvents(allEvents)
	r.s.SetQuestions(false, true)
	path := r.file("f")
	sub := startSubject(t)
	r.cached(sub, path)
	r.mu.Lock() // the notifier hangs in Emit
	sub.do("creates", mkdir(t, filepath.Join(r.dir, "d")), strconv.Itoa(queueLimit(t)*5/4))
	flushes := r.s.Stats().CacheFlushes
	r.mu.Unlock()
	eventually(t, "the overflow is counted", func() bool { return r.s.Stats().EventsLost > 0 })
	eventually(t, "the cache is dropped", func() bool { return r.s.Stats().CacheFlushes > flushes })
	eventually(t, "it is in the health registry", func() bool {
		for _, e := range r.health.List() {
			if e.Component == componentEvents {
				return true
			}
		}
		return false
	})
}

// Without FAN_RENAME (before 5.17) the two halves of a rename are put together.
func TestRenameWithoutFANRENAME(t *testing.T) {
	r := newRig(t, "")
	r.s.mounts.mu.Lock()
	r.s.mounts.rename = false
	r.s.mounts.mu.Unlock()
	r.s.SetEvents(allEvents)
	sub := startSubject(t)
	a, b := filepath.Join(r.dir, "a"), filepath.Join(r.dir, "b")
	sub.do("create", a)
	sub.do("rename", a, b)
	if e := r.event(event.Rename, b); e.File.From != a {
		t.Errorf("rename: %+v", e.File)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Kind == event.Unlink {
			t.Errorf("a rename is told as an unlink of %s", e.File.File.Path)
		}
	}
}
