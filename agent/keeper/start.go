package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"bailey/internal/launch"

	"golang.org/x/sys/unix"
)

// Descriptor numbers of an agent at its start.
const (
	// SocketFD is the agent's end of the socket to the keeper.
	SocketFD = 3
	// BoardFD is the board.
	BoardFD = 4
)

// program is an executable that an agent is started from. Its descriptor keeps it runnable when the file is replaced.
type program struct {
	file *os.File
	path string
}

// close lets a program go that no agent will be started from any more. nil is none.
func (p *program) close() {
	if p != nil {
		_ = p.file.Close()
	}
}

// openProgram opens an executable by path.
func openProgram(path string) (*program, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the agent's program: %w", err)
	}
	return adoptProgram(f)
}

// adoptProgram takes over an open executable, which is moved out of the answerer's numbers.
func adoptProgram(f *os.File) (*program, error) {
	defer func() { _ = f.Close() }()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, storeFrom)
	if err != nil {
		return nil, fmt.Errorf("keep the agent's program open: %w", err)
	}
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		path = f.Name()
	}
	return &program{file: os.NewFile(uintptr(fd), path), path: path}, nil
}

// child is one started agent.
type child struct {
	pid     int
	pidfd   int
	sock    *os.File // the keeper's end
	program *program
	began   time.Time
	ready   bool // it said so
	standby bool
	passed  uint64 // the number of what it was given last: see kept
	ending  bool   // it said that it ends
	reason  string
}

// start begins a new agent and hands it what the last one kept. It may take long: the answerer goes on meanwhile, because
// executing the agent's program may itself be a question.
func (k *Keeper) start(p *program, standby bool) (*child, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make the agent's socket: %w", err)
	}
	ours, err := highFile(pair[0], "agent")
	if err != nil {
		_ = unix.Close(pair[1])
		return nil, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "keeper")
	defer func() { _ = theirs.Close() }()

	files := []uintptr{0, 1, 2, theirs.Fd(), k.board.file.Fd()}
	for len(files) <= ReservedTo {
		files = append(files, k.board.file.Fd())
	}
	c := &child{sock: ours, pidfd: -1, program: p, began: time.Now(), standby: standby}
	// Its own process group: the terminal's signals come to the keeper, which passes each on once.
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: files, Sys: &syscall.SysProcAttr{Setpgid: true, PidFD: &c.pidfd}}
	// Not by its path: the file there may be another one by now.
	path := "/proc/self/fd/" + strconv.Itoa(int(p.file.Fd()))
	c.pid, err = preferred(func() (int, error) {
		return launch.ForkExec(path, append([]string{filepath.Base(p.path)}, k.cfg.Args...), attr)
	})
	if err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("start the agent %s: %w", p.path, err)
	}
	if c.pidfd < 0 {
		if c.pidfd, err = unix.PidfdOpen(c.pid, 0); err != nil {
			return c, errors.Join(fmt.Errorf("watch the agent: %w", err), c.kill(), ours.Close())
		}
	}
	if fd, err := unix.FcntlInt(uintptr(c.pidfd), unix.F_DUPFD_CLOEXEC, storeFrom); err == nil {
		_ = unix.Close(c.pidfd)
		c.pidfd = fd
	}
	if err := k.handOn(c, standby); err != nil {
		return c, errors.Join(err, c.kill())
	}
	return c, nil
}

// AgentNice is the agent's scheduling priority: others wait for its answers, and an agent that gets no processor time is
// taken for one that hangs. Products have the ordinary one; their containment sees to it.
const AgentNice = -10

// preferred starts a process that is scheduled before others.
func preferred(start func() (int, error)) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if unix.Setpriority(unix.PRIO_PROCESS, 0, AgentNice) == nil {
		defer func() { _ = unix.Setpriority(unix.PRIO_PROCESS, 0, 0) }()
	}
	return start()
}

// highFile moves a descriptor out of the numbers that the answerer reads into.
func highFile(fd int, name string) (*os.File, error) {
	defer func() { _ = unix.Close(fd) }()
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, storeFrom)
	if err != nil {
		return nil, fmt.Errorf("make the agent's socket: %w", err)
	}
	return os.NewFile(uintptr(high), name), nil
}

// handOn sends all that is kept, and the word to begin.
func (k *Keeper) handOn(c *child, standby bool) error {
	if err := k.pass(c); err != nil {
		return err
	}
	m := message{op: opBegin, fd: -1}
	if standby {
		m.arg = 1
	}
	return send(int(c.sock.Fd()), m)
}

// pass gives an agent what is kept and was not when it was given something before.
func (k *Keeper) pass(c *child) error {
	for _, name := range k.store.names() {
		kept := k.store.kept[name]
		if kept.number <= c.passed {
			continue
		}
		if err := send(int(c.sock.Fd()), message{op: opInherit, name: name, fd: kept.fd}); err != nil {
			return err
		}
	}
	c.passed = k.store.count
	return nil
}

func (c *child) kill() error { return c.signal(unix.SIGKILL) }

func (c *child) signal(s syscall.Signal) error {
	if c.pidfd < 0 {
		return syscall.Kill(c.pid, s)
	}
	return unix.PidfdSendSignal(c.pidfd, s, nil, 0)
}

func (c *child) close() {
	_ = c.sock.Close()
	if c.pidfd >= 0 {
		_ = unix.Close(c.pidfd)
	}
}
