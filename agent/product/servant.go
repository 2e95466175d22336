package product

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"bailey/agent/product/cgroup"
	"bailey/agent/product/contain"
	"bailey/internal/tail"
)

// Servant is work of the agent itself that is done in a containment: by this very program, as a user of its own, with the network and a directory,
// and no product of anybody.
type Servant struct {
	Name    string // of its control group; no product's name has a dot
	Command []string
	Env     []string
	Dir     string   // what it may write, as contain.StateDir; made, and made its own
	Read    []string // what else it may read, where it is there
	Memory  int64
	File    int64 // the largest file it may write
}

// servantThreads bounds the processes and threads of a servant, and its descriptors.
const servantThreads, servantFiles = 64, 256

// Serving is a servant that runs. Safe for concurrent use.
type Serving struct {
	Conn net.Conn // the other end is contain.SocketFD

	m       *Manager
	process *contain.Process
	group   *cgroup.Group
	said    tail.Buffer
	silent  chan struct{} // closed when it says nothing more

	once sync.Once
	err  error
}

// servantUID is the user that servants run as; trials have the one after it.
func (m *Manager) servantUID() uint32 { return m.trialUID() - 1 }

// Serve starts a servant. It ends with the agent, or by End.
func (m *Manager) Serve(s Servant) (*Serving, error) {
	v, err := m.serve(s)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	return v, nil
}

func (m *Manager) serve(s Servant) (v *Serving, err error) {
	m.mu.Lock()
	running, tree := m.ctx != nil, m.tree
	m.mu.Unlock()
	if !running {
		return nil, errNotRunning
	}
	empty := filepath.Join(m.cfg.Run, "nothing")
	uid := int(m.servantUID())
	if err := errors.Join(os.MkdirAll(empty, 0o755), os.MkdirAll(s.Dir, 0o700), os.Chown(s.Dir, uid, uid)); err != nil {
		return nil, err
	}
	v = &Serving{m: m, silent: make(chan struct{})}
	if v.group, err = tree.Create(s.Name, cgroup.Limits{Memory: s.Memory, Pids: servantThreads, CPU: 1}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.group.Remove())
		}
	}()
	ours, theirs, err := socketPair("stream")
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(ours), "servant socket")
	defer closeAll([]*os.File{theirs, f}) // both sides have their own
	if v.Conn, err = net.FileConn(f); err != nil {
		return nil, err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, v.Conn.Close())
	}
	go func() {
		defer close(v.silent)
		defer func() { _ = out.Close() }()
		_, _ = io.Copy(&v.said, out) // to its end, whatever that is
	}()
	v.process, err = m.spawner.Start(contain.Spec{
		Name: "bailey", Root: m.rootDir(), Release: empty, State: s.Dir, Read: s.Read, Command: s.Command, Env: s.Env, Network: true,
		UID: m.servantUID(), TmpBytes: 1 << 20, FileBytes: s.File, Pids: servantThreads, Files: servantFiles,
	}, contain.Options{Helper: m.cfg.Helper, Group: v.group, Socket: theirs, Stderr: in})
	_ = in.Close() // the servant has its own
	if err != nil {
		return nil, errors.Join(err, v.Conn.Close())
	}
	m.mu.Lock()
	m.servants[v] = true
	m.mu.Unlock()
	return v, nil
}

// PID is the servant's process id; 0 if it was gone before it could be looked up.
func (v *Serving) PID() int { return v.process.PID() }

// End kills the servant with all that it started, and returns what it said last on its standard error.
func (v *Serving) End() (string, error) {
	v.once.Do(func() {
		v.m.mu.Lock()
		delete(v.m.servants, v)
		v.m.mu.Unlock()
		v.process.Kill()
		<-v.process.Done()
		<-v.silent
		v.err = errors.Join(v.Conn.Close(), v.group.Remove())
	})
	return strings.ToValidUTF8(v.said.String(), "?"), v.err
}

// endServants ends those that nobody ended.
func (m *Manager) endServants() {
	m.mu.Lock()
	left := slices.Collect(maps.Keys(m.servants))
	m.mu.Unlock()
	for _, v := range left {
		if _, err := v.End(); err != nil {
			m.cfg.Log.Error("something of a servant is left", "err", err)
		}
	}
}
