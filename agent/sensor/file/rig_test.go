package file

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/agent/health"
	"bailey/internal/roottest"
)

// processes is a ProcessSource and IdentitySource: it knows every pid but those it was told not to, and this test is the
// platform.
type testProcesses struct {
	unknown  atomic.Bool // Lookup knows nobody
	unload   atomic.Bool // Load fails
	loads    atomic.Int64
	slow     chan struct{} // Load waits for it when not nil
	neverAsk atomic.Uint32
	kernel   atomic.Uint32
	own      uint32
	cache    sync.Map
}

func (p *testProcesses) Lookup(pid uint32) *event.Process {
	if p.unknown.Load() {
		return nil
	}
	return p.get(pid)
}

func (p *testProcesses) get(pid uint32) *event.Process {
	if v, ok := p.cache.Load(pid); ok {
		return v.(*event.Process)
	}
	v, _ := p.cache.LoadOrStore(pid, &event.Process{Key: event.ProcessKey{PID: pid, Start: 1}, Kernel: pid == p.kernel.Load()})
	return v.(*event.Process)
}

func (p *testProcesses) Load(pid uint32) (*event.Process, error) {
	p.loads.Add(1)
	if p.slow != nil {
		<-p.slow
	}
	if p.unload.Load() {
		return nil, errors.New("gone")
	}
	return p.get(pid), nil
}

func (p *testProcesses) Platform(pid uint32) bool { return pid == p.own }
func (p *testProcesses) NeverAsk(pid uint32) bool { return pid == p.neverAsk.Load() }

// rig is a sensor that watches one scratch tmpfs.
type rig struct {
	t      testing.TB
	s      *Sensor
	dir    string
	procs  *testProcesses
	health *health.Registry
	exempt atomic.Uint32

	decide atomic.Pointer[func(*event.Question)]
	asks   [64]atomic.Int64

	mu     sync.Mutex
	events []*event.Event

	cancel context.CancelFunc
	done   chan error
}

// allowCached answers at once and lets the kernel remember it.
func allowCached(q *event.Question) {
	q.Answer(event.Decision{Allow: true, Reason: event.ByProducts, CacheFile: true})
	q.Release()
}

func allow(q *event.Question) {
	q.Answer(event.Decision{Allow: true, Reason: event.ByProducts})
	q.Release()
}

func deny(q *event.Question) {
	q.Answer(event.Decision{Reason: event.ByProducts})
	q.Release()
}

func scratch(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	mountAt(t, "tmpfs", "scratch", dir, "size=64m")
	return dir
}

func mountAt(t testing.TB, fsType, source, dir, options string) {
	t.Helper()
	roottest.Require(t, "mounting needs CAP_SYS_ADMIN")
	if err := unix.Mount(source, dir, fsType, 0, options); err != nil {
		t.Fatalf("mount %s at %s: %v", fsType, dir, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil && err != unix.EINVAL {
			t.Errorf("unmount %s: %v", dir, err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
}

// scratchExt4 mounts a new ext4 from a loop device.
func scratchExt4(t testing.TB) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(64<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	dir, _ := filepath.EvalSymlinks(t.TempDir())
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			roottest.Unavailable(t, fmt.Sprintf("needs ext4 on a loop device: %s: %v: %s", strings.Join(args, " "), err, out))
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir
}

// newRig starts a sensor on dir, or on a new tmpfs when it is empty. Its Ask allows, cached, until decide is changed.
func newRig(t testing.TB, dir string, adjust ...func(*Config)) *rig {
	t.Helper()
	roottest.Require(t, "fanotify permission marks need CAP_SYS_ADMIN")
	if dir == "" {
		dir = scratch(t)
	}
	r := &rig{t: t, dir: dir, procs: &testProcesses{own: uint32(os.Getpid())}, health: health.NewRegistry(), done: make(chan error, 1)}
	r.answer(allowCached)
	cfg := Config{Watch: []string{dir}, Processes: r.procs, Identity: r.procs, Health: r.health,
		Exempt: func(pid uint32) bool { return pid == r.exempt.Load() },
		Ask: func(q *event.Question) {
			r.asks[q.Kind].Add(1)
			(*r.decide.Load())(q)
		},
		Emit: func(e *event.Event) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, e)
		},
	}
	for _, f := range adjust {
		f(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.s = s
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { r.done <- s.Run(ctx) }()
	<-s.Ready()
	t.Cleanup(func() { r.stop() })
	return r
}

// stop ends the sensor and checks that every question was answered once and released.
func (r *rig) stop() {
	r.t.Helper()
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.cancel = nil
	select {
	case err := <-r.done:
		if err != nil {
			r.t.Errorf("run: %v", err)
		}
	case <-time.After(waitLimit):
		r.t.Fatal("the sensor does not stop")
	}
	st := r.s.Stats()
	var answered uint64
	for _, n := range st.Answered {
		answered += n
	}
	if answered != st.Read || st.Allowed+st.Denied != st.Read {
		r.t.Errorf("read %d questions, answered %d (%d allowed, %d denied)", st.Read, answered, st.Allowed, st.Denied)
	}
	if st.AnswerErrors != 0 || st.CacheErrors != 0 || st.EventsUnparsed != 0 || st.UnknownKind != 0 {
		r.t.Errorf("errors: %+v", st)
	}
	eventually(r.t, "all questions released", func() bool { return r.s.Stats().Pending == 0 })
}

func (r *rig) answer(f func(*event.Question)) { r.decide.Store(&f) }

func (r *rig) asked(k event.Kind) int64 { return r.asks[k].Load() }

// file makes a file that has been left alone long enough to be cached.
func (r *rig) file(name string) string {
	r.t.Helper()
	p := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte("0123456789"), 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.settle()
	return p
}

// binary puts a small static executable there.
func (r *rig) binary(name string) string {
	r.t.Helper()
	p := filepath.Join(r.dir, name)
	if err := os.WriteFile(p, tinyELF(r.t), 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.settle()
	return p
}

// tinyELF is a static program that exits with 0.
func tinyELF(t testing.TB) []byte {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		b, err := os.ReadFile("/bin/true")
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	code := []byte{0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05} // xor edi,edi; mov eax,60; syscall
	const base, head = 0x400000, 64 + 56
	b := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	le := binary.LittleEndian
	b = le.AppendUint16(b, 2)         // ET_EXEC
	b = le.AppendUint16(b, 62)        // EM_X86_64
	b = le.AppendUint32(b, 1)         // version
	b = le.AppendUint64(b, base+head) // entry
	b = le.AppendUint64(b, 64)        // program headers
	b = le.AppendUint64(b, 0)         // no sections
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1) // PT_LOAD
	b = le.AppendUint32(b, 5) // r-x
	size := uint64(head + len(code))
	for _, v := range []uint64{0, base, base, size, size, 4096} {
		b = le.AppendUint64(b, v)
	}
	return append(b, code...)
}

// settle waits until files just written are old enough for the cache, and until their close was noticed.
func (r *rig) settle() { <-time.After(racyWindow + 20*time.Millisecond) }

// waitLimit is how long a condition is waited for; an emulated machine needs most of it.
const waitLimit = 30 * time.Second

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); {
		if ok() {
			return
		}
		<-time.After(2 * time.Millisecond)
	}
	t.Fatalf("not in time: %s", what)
}

// event waits for an event of the kind on path.
func (r *rig) event(k event.Kind, path string) *event.Event {
	r.t.Helper()
	var found *event.Event
	eventually(r.t, fmt.Sprintf("%v event on %s", k, path), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, e := range r.events {
			if e.Kind == k && e.File.File.Path == path {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

// mallocs returns how many objects this process has allocated.
func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}
