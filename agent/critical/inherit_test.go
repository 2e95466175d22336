package critical

import (
	"bytes"
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"bailey/agent/event"
)

// keeper keeps one descriptor for the next agent.
type keeper map[string]int

func (k keeper) Keep(name string, fd int) error {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if old, ok := k[name]; ok {
		_ = unix.Close(old)
	}
	k[name] = own
	return err
}

func (k keeper) Take(name string) (int, bool) {
	fd, ok := k[name]
	delete(k, name)
	return fd, ok
}

func TestTheNextAgentKnowsWhatIsCriticalAtOnce(t *testing.T) {
	t.Parallel()
	k := keeper{}
	first, err := New(Config{Platform: []string{"/var/lib/platform"}, Keeper: k})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	next, err := New(Config{Keeper: k})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-next.Tried():
	default:
		t.Fatal("it waits for its own")
	}
	a, b := first.current.Load(), next.current.Load()
	if d := cmp.Diff(a, b, cmp.AllowUnexported(snapshot{}, tree{}, identity{})); d != "" {
		t.Error(d)
	}
	if next.Contains(&event.File{Path: "/nowhere"}) {
		t.Error("everything is critical")
	}
}

func FuzzDecode(f *testing.F) {
	k := keeper{}
	s, err := New(Config{Keeper: k})
	if err != nil {
		f.Fatal(err)
	}
	s.bequeath(&snapshot{files: map[identity]int64{{1, 2}: 3}, paths: map[string]uint64{"/a": 1}, trees: []tree{{"/b/", 1}}})
	fd, _ := k.Take(keptName)
	buf := make([]byte, 4096)
	n, err := unix.Pread(fd, buf, 0)
	if err != nil {
		f.Fatal(err)
	}
	_ = unix.Close(fd)
	f.Add(buf[:n])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if now, err := decode(bytes.NewReader(b)); err == nil && now == nil {
			t.Error("neither a set nor an error")
		}
	})
}
