package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"bailey/internal/bpflsm"
	"bailey/internal/cgroup2"
)

// Trust makes a living process trusted, and what it starts from trusted programs.
func (g *Guard) Trust(pid uint32) error {
	if err := g.learn(roleTrusted|roleProtected, statOf(pid)); err != nil {
		return fmt.Errorf("trust process %d: %w", pid, err)
	}
	g.keepHome(pid)
	return nil
}

// ProtectProcess protects a living process and all that it starts, and trusts none of them.
func (g *Guard) ProtectProcess(pid uint32) error {
	if err := g.learn(roleProtected, statOf(pid)); err != nil {
		return fmt.Errorf("protect process %d: %w", pid, err)
	}
	g.keepHome(pid)
	return nil
}

// ReleaseProcess ends the protection of a process, but not of what it started before.
func (g *Guard) ReleaseProcess(pid uint32) error {
	g.dropHome(pid)
	return g.learn(0, statOf(pid))
}

func statOf(pid uint32) string { return "/proc/" + strconv.FormatUint(uint64(pid), 10) + "/stat" }

// Protect lets only trusted processes change files and directories, with all below, wherever they are seen: what is protected
// are the inodes. A file that takes the place of a protected one must be protected anew; all paths lead through directories and
// no symbolic links.
func (g *Guard) Protect(paths ...string) error { return g.protect(flagTree, paths...) }

// TrustProgram lets a trusted process stay trusted when it executes the program at path, which is protected from now on.
func (g *Guard) TrustProgram(path string) error { return g.protect(flagTree|flagProgram, path) }

// protectPinned protects directories of pins and the maps in them: a map can be had by its number too.
func (g *Guard) protectPinned(dirs []string) error {
	for _, dir := range dirs {
		if err := g.Protect(dir); err != nil {
			return err
		}
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			m, err := ebpf.LoadPinnedMap(path, nil)
			if err != nil {
				return nil // a program or a link
			}
			defer m.Close() //nolint:errcheck // nothing was written
			return g.registerMap(m)
		})
		if err != nil {
			return fmt.Errorf("protect the pins in %s: %w", dir, err)
		}
	}
	return nil
}

// Release ends the protection of paths. It must come before a path's removal: the kernel uses inodes again.
func (g *Guard) Release(paths ...string) error {
	for _, path := range paths {
		if err := g.learn(0, path); err != nil {
			return fmt.Errorf("release %s: %w", path, err)
		}
	}
	return nil
}

func (g *Guard) protect(flags uint32, paths ...string) error {
	for _, path := range paths {
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return fmt.Errorf("protect %s: %w", path, err)
		}
		if err := g.learn(flags, real); err != nil {
			return fmt.Errorf("protect %s: %w", path, err)
		}
		// Renamed or unmounted, a directory above would take it along. These are the directories as they are seen, so
		// where one is a mount point it is the mount's root.
		for dir := filepath.Dir(real); ; dir = filepath.Dir(dir) {
			if err := g.learn(flagAncestor, dir); err != nil {
				return fmt.Errorf("protect what is above %s: %w", path, err)
			}
			if dir == "/" {
				break
			}
		}
	}
	return nil
}

// learn has the programs enter a file with flags, or, for a file of /proc/PID, a process with a role. It makes sure that they did.
func (g *Guard) learn(flags uint32, path string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := atomic.LoadUint32(&g.control.Learned)
	atomic.StoreUint32(&g.control.LearnFlags, flags)
	atomic.StoreUint32(&g.control.LearnThread, uint32(unix.Gettid()))
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	atomic.StoreUint32(&g.control.LearnThread, 0)
	if errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("%s is a socket: protect its directory", path)
	}
	switch {
	case errors.Is(err, unix.EACCES) && atomic.LoadUint32(&g.control.Learned) != before:
		return nil // a file of sysfs that can only be written: the programs saw it
	case err != nil:
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	if atomic.LoadUint32(&g.control.Learned) == before {
		return bpflsm.NotCalled("file_open")
	}
	return nil
}

// keepHome holds open the way back to a process's control group: when it was moved to one without memory there is none left
// to open anything.
func (g *Guard) keepHome(pid uint32) {
	group, err := cgroup2.Of(pid)
	if err != nil || group == "" {
		return
	}
	home, err := os.OpenFile(filepath.Join(cgroup2.Root, group, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		g.cfg.Log.Warn("a process could not be brought back if it were moved to another control group", "pid", pid, "err", err)
		return
	}
	g.dropHome(pid)
	g.mu.Lock()
	g.homes[pid] = home
	g.mu.Unlock()
}

func (g *Guard) dropHome(pid uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if home := g.homes[pid]; home != nil {
		_ = home.Close()
		delete(g.homes, pid)
	}
}

// bringHome moves a process back that somebody moved to another control group.
func (g *Guard) bringHome(a *Attempt) {
	g.mu.Lock()
	home := g.homes[a.Target]
	g.mu.Unlock()
	if home == nil {
		return
	}
	var err error
	for range 10 { // a cgroup without memory refuses now and then
		if _, err = home.WriteString(strconv.FormatUint(uint64(a.Target), 10)); err == nil {
			break
		}
	}
	if err != nil {
		g.cfg.Log.Error("a process was moved to another control group and stays there", "pid", a.Target, "err", err)
		return
	}
	a.Undone = true
	g.releaseTemporary()
}

// releaseTemporary ends the protection of control groups that protected processes were moved into.
func (g *Guard) releaseTemporary() {
	roots := g.kernel.Maps[mapRoots]
	var at guardPlace
	var flags uint32
	var gone []guardPlace
	for it := roots.Iterate(); it.Next(&at, &flags); {
		if flags&flagTemporary != 0 {
			gone = append(gone, at)
		}
	}
	for _, at := range gone {
		if err := roots.Delete(at); err != nil {
			g.cfg.Log.Warn("a control group stays protected", "err", err)
		}
	}
}
