package contain

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Reconnect puts the host's socket at path into the running product's root again. A daemon that restarts makes a new socket
// under the old name, and a mount shows the old one for ever. path must be one of the spec's Connect.
func (p *Process) Reconnect(path string) error {
	result := make(chan error, 1)
	go func() {
		// Not unlocked: this thread is in the product's mounts from here on and must end with the goroutine.
		runtime.LockOSThread()
		result <- p.reconnect(path)
	}()
	if err := <-result; err != nil {
		return fmt.Errorf("reconnect %s: %w", path, err)
	}
	return nil
}

func (p *Process) reconnect(path string) error {
	ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", p.InitPID()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open mount namespace: %w", err)
	}
	defer func() { _ = unix.Close(ns) }()
	tree, err := copyMount(path, attrReadOnly|unix.MOUNT_ATTR_NOEXEC, false)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(tree) }()
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // threads share their root, and setns wants its own
		return fmt.Errorf("leave shared root: %w", err)
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter mount namespace: %w", err)
	}
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("remove old socket: %w", err) // EINVAL: nothing was mounted yet
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach mount: %w", err)
	}
	return nil
}

// Sockets are the sockets of the host that a product may connect to, as they were when they were last put into its root.
// Not safe for concurrent use.
type Sockets struct {
	paths []string
	last  map[string]socketID
}

type socketID struct {
	dev, ino uint64
	ctime    int64
}

// WatchSockets notes what the sockets of spec are now; called before the product starts.
func WatchSockets(spec Spec) *Sockets {
	s := &Sockets{last: make(map[string]socketID)}
	for _, p := range spec.Connect {
		if !slices.ContainsFunc(spec.Read, func(d string) bool { return p == d || strings.HasPrefix(p, d+"/") }) {
			s.paths = append(s.paths, p)
			s.last[p], _ = identify(p)
		}
	}
	return s
}

// AdoptSockets is WatchSockets for a product that runs already: what it was given is not known, so the next Refresh gives it
// all that is there.
func AdoptSockets(spec Spec) *Sockets {
	s := WatchSockets(spec)
	clear(s.last)
	return s
}

// Refresh reconnects p to the sockets that appeared or were replaced.
func (s *Sockets) Refresh(p *Process) error {
	var errs []error
	for _, path := range s.paths {
		id, ok := identify(path)
		if !ok || id == s.last[path] {
			continue
		}
		if err := p.Reconnect(path); err != nil {
			errs = append(errs, err)
			continue
		}
		s.last[path] = id
	}
	return errors.Join(errs...)
}

func identify(path string) (id socketID, ok bool) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return socketID{}, false
	}
	return socketID{dev: st.Dev, ino: st.Ino, ctime: st.Ctim.Nano()}, true
}
