// Package keepertest is a keeper for tests: it holds products' descriptors in the test's own process, for agents in it and
// in others, and reaps what killed agents leave. It restarts nobody and answers no questions.
//
// Invariant: what it keeps it keeps until that is dropped or replaced, whoever took it meanwhile.
package keepertest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/product"
)

// Keeper holds descriptors in this process, for agents in it and, through Serve, for others. Like the real one it keeps what
// it has handed out until that is dropped or replaced, and reaps what agents leave.
type Keeper struct {
	mu     sync.Mutex
	kept   map[string]int
	left   map[string]int // for the present agent to take
	events chan string    // what an agent elsewhere says of itself
	fail   error          // of every Keep
}

var _ product.Keeper = (*Keeper)(nil)

// New returns a keeper that holds nothing, and makes this process the parent of what agents leave, until t is over.
func New(t *testing.T) *Keeper {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	k := &Keeper{kept: map[string]int{}, left: map[string]int{}, events: make(chan string, 1000)}
	t.Cleanup(func() {
		k.Die()
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	})
	return k
}

// Next is the end of one agent and the start of another.
func (k *Keeper) Next() *Keeper {
	k.mu.Lock()
	defer k.mu.Unlock()
	for n, fd := range k.left {
		_ = unix.Close(fd)
		delete(k.left, n)
	}
	for n, fd := range k.kept {
		k.left[n], _ = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	}
	return k
}

// Die is the keeper's death.
func (k *Keeper) Die() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range []map[string]int{k.kept, k.left} {
		for n, fd := range m {
			_ = unix.Close(fd)
			delete(m, n)
		}
	}
}

// Fail makes every Keep fail from here on.
func (k *Keeper) Fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = err
}

// Keep implements product.Keeper.
func (k *Keeper) Keep(name string, fd int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return k.fail
	}
	if len(name) > 63 {
		return fmt.Errorf("name of %d bytes", len(name))
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if old, ok := k.kept[name]; ok {
		_ = unix.Close(old)
	}
	k.kept[name] = own
	return nil
}

// Drop implements product.Keeper.
func (k *Keeper) Drop(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if fd, ok := k.kept[name]; ok {
		_ = unix.Close(fd)
		delete(k.kept, name)
	}
	return nil
}

// Take implements product.Keeper.
func (k *Keeper) Take(name string) (int, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	fd, ok := k.left[name]
	delete(k.left, name)
	return fd, ok
}

// Names implements product.Keeper.
func (k *Keeper) Names() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []string
	for n := range k.left {
		out = append(out, n)
	}
	return out
}

// Holds lists what is kept.
func (k *Keeper) Holds() (names []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for n := range k.kept {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Serve does what an agent in another process asks through sock, until that ends. It takes over sock.
func (k *Keeper) Serve(sock int) {
	defer func() { _ = unix.Close(sock) }()
	b, oob := make([]byte, 128), make([]byte, unix.CmsgSpace(4))
	for {
		n, on, _, _, err := unix.Recvmsg(sock, b, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		name, reply, pass := string(b[1:n]), "ok", -1
		switch b[0] {
		case 'K':
			fd := passed(oob[:on])
			if err := k.Keep(name, fd); err != nil {
				reply = err.Error()
			}
			_ = unix.Close(fd)
		case 'D':
			_ = k.Drop(name)
		case 'T':
			fd, ok := k.Take(name)
			if pass = fd; !ok {
				pass, reply = -1, "no"
			}
		case 'N':
			reply = strings.Join(k.Names(), "\n")
		case 'E':
			k.events <- name
		}
		var rights []byte
		if pass >= 0 {
			rights = unix.UnixRights(pass)
		}
		err = unix.Sendmsg(sock, []byte(reply+"\n"), rights, nil, unix.MSG_NOSIGNAL)
		if pass >= 0 {
			_ = unix.Close(pass)
		}
		if err != nil {
			return
		}
	}
}

func passed(oob []byte) int {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) == 0 {
		return -1
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1
	}
	return fds[0]
}

// Remote is the keeper as an agent in another process sees it.
type Remote struct {
	mu   sync.Mutex
	sock int
}

// Dial returns the keeper at the other end of sock, a descriptor.
func Dial(sock int) *Remote {
	unix.CloseOnExec(sock)
	return &Remote{sock: sock}
}

var _ product.Keeper = (*Remote)(nil)

func (r *Remote) call(op byte, name string, fd int) (reply string, got int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	if err := unix.Sendmsg(r.sock, append([]byte{op}, name...), rights, nil, unix.MSG_NOSIGNAL); err != nil {
		return "", -1, err
	}
	b, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4))
	n, on, _, _, err := unix.Recvmsg(r.sock, b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n == 0 {
		return "", -1, fmt.Errorf("the keeper is gone: %w", err)
	}
	return strings.TrimSuffix(string(b[:n]), "\n"), passed(oob[:on]), nil
}

// Keep implements product.Keeper.
func (r *Remote) Keep(name string, fd int) error {
	reply, _, err := r.call('K', name, fd)
	if err == nil && reply != "ok" {
		err = errors.New(reply)
	}
	return err
}

// Drop implements product.Keeper.
func (r *Remote) Drop(name string) error {
	_, _, err := r.call('D', name, -1)
	return err
}

// Take implements product.Keeper.
func (r *Remote) Take(name string) (int, bool) {
	reply, fd, err := r.call('T', name, -1)
	return fd, err == nil && reply == "ok"
}

// Names implements product.Keeper.
func (r *Remote) Names() []string {
	reply, _, err := r.call('N', "", -1)
	if err != nil || reply == "" {
		return nil
	}
	return strings.Split(reply, "\n")
}

// Await returns when an agent elsewhere says what is wanted.
func (k *Keeper) Await(t *testing.T, what string) {
	t.Helper()
	for timeout := time.After(30 * time.Second); ; {
		select {
		case got := <-k.events:
			if got == what {
				return
			}
		case <-timeout:
			t.Fatalf("the agent never said %q", what)
		}
	}
}

// Start makes program an agent in a process of its own whose keeper is k: descriptor 3 is for Dial. env comes on top of this
// process's.
func (k *Keeper) Start(t *testing.T, env []string, program ...string) *exec.Cmd {
	t.Helper()
	k.Next()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "keeper")
	defer func() { _ = theirs.Close() }()
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Env = append(append(os.Environ(), "TMPDIR="+t.TempDir()), env...) // killed, it cannot remove its own
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go k.Serve(pair[0])
	return cmd
}

// Copy returns a descriptor of what is kept under a name.
func (k *Keeper) Copy(t *testing.T, name string) *os.File {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	kept, ok := k.kept[name]
	if !ok {
		t.Fatalf("nothing is kept as %s", name)
	}
	fd, err := unix.FcntlInt(uintptr(kept), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), name)
}

// Tell says what the agent does.
func (r *Remote) Tell(what string) { _, _, _ = r.call('E', what, -1) }

// Reap buries the children of this process that are none of its own.
func Reap(own ...int) {
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for _, w := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(w)
			if err != nil || slices.Contains(own, pid) {
				continue
			}
			var ws unix.WaitStatus
			_, _ = unix.Wait4(pid, &ws, unix.WNOHANG, nil)
		}
	}
}

// ReapAlways reaps in the background until the test is over, all but the agents that are running.
func ReapAlways(t *testing.T, own func() []int) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			Reap(own()...)
			select {
			case <-done:
				Reap(own()...)
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() { close(done); <-ended })
}
