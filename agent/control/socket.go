package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	controlv1 "bailey/api/control/v1"

	"golang.org/x/sys/unix"
)

// ErrInUse says that another agent serves this run directory.
var ErrInUse = errors.New("another agent is running")

// maxSocketPath is what fits the kernel's sun_path with its final zero byte.
const maxSocketPath = 107

// socket is the bound control socket and the lock that proves that no other agent lives in the run directory.
type socket struct {
	path     string
	listener *net.UnixListener
	lock     *os.File
}

// listen binds RUN/control.sock with mode 0600. The lock, which the kernel drops with the agent's death, tells a live
// agent's socket from a dead one's without a race.
func listen(run string) (*socket, error) {
	path := filepath.Join(run, controlv1.SocketName)
	if len(path) > maxSocketPath {
		return nil, &Fault{Class: Invalid, Message: fmt.Sprintf("the control socket's path %s has %d bytes and a unix socket's has at most %d", path, len(path), maxSocketPath), Hint: "choose a shorter run directory with --run"}
	}
	if err := os.MkdirAll(run, 0o755); err != nil {
		return nil, fmt.Errorf("create the run directory: %w", err)
	}
	lock, err := takeLock(run)
	if err != nil {
		return nil, err
	}
	l, err := bind(run, path)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &socket{path: path, listener: l, lock: lock}, nil
}

func takeLock(run string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(run, "control.lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the control socket's lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = &Fault{Class: Exists, Message: fmt.Sprintf("another agent already serves %s", run), Hint: "stop it, or give this one its own --run and --state", Err: ErrInUse}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// bind makes the socket in a directory that only the agent can enter and moves it to path when its mode is right, so that
// there is no moment at which another user can connect.
func bind(run, path string) (*net.UnixListener, error) {
	if err := clearPath(path); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(run, ".control-")
	if err != nil {
		return nil, fmt.Errorf("prepare the control socket: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("prepare the control socket: %w", err)
	}
	defer func() { _ = d.Close() }()
	// Through /proc, because the temporary path may be longer than a socket's may be.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/s", d.Fd()), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("bind the control socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	made := filepath.Join(dir, "s")
	if err := errors.Join(os.Chmod(made, 0o600), os.Rename(made, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("place the control socket: %w", err), l.Close())
	}
	return l, nil
}

// clearPath removes the socket of a dead agent; anything that is not a socket is left alone.
func clearPath(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the control socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return &Fault{Class: Refused, Message: fmt.Sprintf("%s is in the way and is not a socket", path), Hint: "move it away, or choose another run directory with --run"}
	}
	return os.Remove(path)
}

// close removes the socket and gives the lock back. The lock's file stays: removing it would let two agents lock two files.
func (s *socket) close() error {
	err := s.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	rm := os.Remove(s.path)
	if errors.Is(rm, fs.ErrNotExist) {
		rm = nil
	}
	return errors.Join(err, rm, s.lock.Close())
}
