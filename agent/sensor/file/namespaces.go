package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// ownMounts reads the mounts of the agent's own mount namespace.
func ownMounts() ([]mount, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mountinfo: %w", err)
	}
	return parseMountinfo(data, 0)
}

// foreignMounts reads the mounts of every other mount namespace that has a process. Nothing stays open: a descriptor would
// keep the namespace, and all that is mounted in it, alive. A process that ends meanwhile is replaced by the next one.
func foreignMounts() ([]mount, error) {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("read own mount namespace: %w", err)
	}
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	seen := map[string]struct{}{own: {}}
	var out []mount
	for _, pid := range pids {
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		if err != nil { // it ended, or is a kernel thread's
			continue
		}
		if _, ok := seen[ns]; ok {
			continue
		}
		data, err := readAll(fmt.Sprintf("/proc/%d/mountinfo", pid))
		if err != nil {
			continue
		}
		mounts, err := parseMountinfo(data, pid)
		if err != nil {
			return nil, err
		}
		if len(mounts) == 0 { // it ended between the two reads
			continue
		}
		seen[ns] = struct{}{}
		out = append(out, mounts...)
	}
	return out, nil
}

func readAll(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var buf bytes.Buffer
	_, err = io.Copy(&buf, f)
	return buf.Bytes(), err
}

func processes() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// resolveCached is RESOLVE_CACHED of openat2 (5.12): fail instead of waiting for a lookup.
const resolveCached = 0x20

// errCovered says that no path leads to a mount, because another one lies over it.
var errCovered = errors.New("it is covered by another mount")

// openMount opens m's root as O_PATH, which asks nobody. Where the way could lead over a server, only what the kernel has in
// its cache is looked up: nothing here may hang.
func openMount(m mount) (int, error) {
	root := "/"
	if m.pid != 0 {
		root = fmt.Sprintf("/proc/%d/root", m.pid)
	}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open the root of process %d: %w", m.pid, err)
	}
	defer func() { _ = unix.Close(dir) }()
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if m.overRemote {
		how.Resolve |= resolveCached
	}
	fd, err := unix.Openat2(dir, filepath.Join("/", m.point), &how)
	if err != nil {
		return -1, fmt.Errorf("open mount point %s: %w", m.point, err)
	}
	// Another mount may cover this one, or have taken its place.
	var st unix.Statx_t
	if errno := sysStat(fd, nul[:], &st); errno != 0 || st.Mnt_id != m.id {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("open mount point %s: %w", m.point, errCovered)
	}
	return fd, nil
}

// checkWatch refuses what cannot be watched: a mark covers a whole file system, so that watching a directory inside one
// would mean to ask about all of it.
func checkWatch(watch []string) error {
	if len(watch) == 0 {
		return nil
	}
	mounts, err := ownMounts()
	if err != nil {
		return err
	}
	for _, w := range watch {
		m, ok := topMount(mounts, filepath.Clean(w))
		if !ok {
			return fmt.Errorf("watch %s: it is not a mount point: name the mount point of the file system it is on (findmnt --target %s)", w, w)
		}
		if m.root != "/" && m.fsType != "btrfs" {
			return fmt.Errorf("watch %s: only %s of its file system is mounted there, and watching would cover the whole: name the mount point of the file system's root", w, m.root)
		}
		if classOf(m.fsType) == fsPseudo {
			return fmt.Errorf("watch %s: a file system of type %s cannot be watched", w, m.fsType)
		}
	}
	return nil
}

// topMount finds the mount that is visible at point: of several stacked there the last.
func topMount(mounts []mount, point string) (mount, bool) {
	for i := len(mounts) - 1; i >= 0; i-- {
		if mounts[i].point == point {
			return mounts[i], true
		}
	}
	return mount{}, false
}
