package contain

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	attrQuiet    = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	attrReadOnly = attrQuiet | unix.MOUNT_ATTR_RDONLY
	attrData     = attrQuiet | unix.MOUNT_ATTR_NOEXEC
)

// hidden files of /proc tell about the host; readOnlyProc must not be written even by what would be root here. Both lists
// follow the OCI runtime specification's defaults.
var (
	hidden       = []string{"acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats", "kallsyms", "kmsg", "modules", "slabinfo", "vmallocinfo"}
	readOnlyProc = []string{"bus", "fs", "irq", "sys", "sysrq-trigger"}
	devices      = []string{"null", "zero", "full", "random", "urandom"}
)

// buildRoot makes the product's root on a tmpfs over s.Root, and makes it this process's root.
func buildRoot(s *Spec, st status) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("bailey", s.Root, "tmpfs", unix.MS_NOSUID, "size=1m,nr_inodes=2k,mode=0755"); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	r := root{dir: s.Root}
	for _, step := range []func() error{
		func() error { return r.own(s) },
		func() error { return r.devices() },
		func() error { return r.etc(s) },
		func() error { return r.host(s) },
		func() error { return r.proc(st) },
		r.enter,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// root is a product's root that is being built at dir.
type root struct{ dir string }

func (r root) at(path string) string { return filepath.Join(r.dir, path) }

// own puts release, state and temporary files in place.
func (r root) own(s *Spec) error {
	if err := r.bind(s.Release, ProductDir, attrReadOnly, false); err != nil {
		return fmt.Errorf("mount release: %w", err)
	}
	attr := attrData
	if s.StateReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if err := r.bind(s.State, StateDir, attr, false); err != nil {
		return fmt.Errorf("mount state: %w", err)
	}
	if err := os.Mkdir(r.at(TmpDir), 0o1777); err != nil {
		return fmt.Errorf("mount tmp: %w", err)
	}
	opts := fmt.Sprintf("size=%d,nr_inodes=16k,mode=1777", s.TmpBytes)
	if err := unix.Mount("tmp", r.at(TmpDir), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, opts); err != nil {
		return fmt.Errorf("mount tmp: %w", err)
	}
	return nil
}

func (r root) devices() error {
	if err := os.Mkdir(r.at("/dev"), 0o755); err != nil {
		return fmt.Errorf("make /dev: %w", err)
	}
	for _, d := range devices {
		if err := r.bind("/dev/"+d, "/dev/"+d, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, false); err != nil {
			return fmt.Errorf("make /dev/%s: %w", d, err)
		}
	}
	for link, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "shm": TmpDir} {
		if err := os.Symlink(target, r.at("/dev/"+link)); err != nil {
			return fmt.Errorf("make /dev/%s: %w", link, err)
		}
	}
	return nil
}

// etc writes the few files that C libraries and language runtimes look for.
func (r root) etc(s *Spec) error {
	uid, hosts := s.UID, "files"
	if s.Network {
		hosts = "files dns"
	}
	files := map[string]string{
		"passwd":        fmt.Sprintf("root:x:0:0:root:/:/nonexistent\nproduct:x:%d:%d:product:%s:/nonexistent\nnobody:x:65534:65534:nobody:/:/nonexistent\n", uid, uid, StateDir),
		"group":         fmt.Sprintf("root:x:0:\nproduct:x:%d:\nnogroup:x:65534:\n", uid),
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: " + hosts + "\n",
		"hosts":         "127.0.0.1 localhost\n::1 localhost\n",
	}
	if tz, err := os.ReadFile("/etc/localtime"); err == nil && len(tz) < 64<<10 {
		files["localtime"] = string(tz)
	}
	if err := os.MkdirAll(r.at("/etc"), 0o755); err != nil {
		return fmt.Errorf("make /etc: %w", err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(r.at("/etc"), name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("make /etc: %w", err)
		}
	}
	return nil
}

// host puts the granted paths and sockets of the host in place. What is not there on this machine is left out: a product
// that asks for two package databases finds the one that exists.
func (r root) host(s *Spec) error {
	var done []string
	covered := func(p string) bool {
		return slices.ContainsFunc(done, func(d string) bool { return p == d || strings.HasPrefix(p, d+"/") })
	}
	paths := slices.Clone(s.Read)
	slices.Sort(paths) // a directory comes before what is below it
	for _, p := range paths {
		if covered(p) {
			continue
		}
		if _, err := os.Stat(p); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := r.bind(p, p, attrReadOnly, true); err != nil {
			return fmt.Errorf("mount %s: %w", p, err)
		}
		done = append(done, p)
	}
	for _, p := range s.Connect {
		if covered(p) {
			continue
		}
		if err := r.socket(p); err != nil {
			return fmt.Errorf("mount socket %s: %w", p, err)
		}
	}
	return nil
}

// socket puts a unix socket in place, or an empty file that Process.Reconnect mounts it on when it appears.
func (r root) socket(path string) error {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		return r.bind(path, path, attrReadOnly|unix.MOUNT_ATTR_NOEXEC, false)
	}
	if err := os.MkdirAll(filepath.Dir(r.at(path)), 0o755); err != nil {
		return err
	}
	return os.WriteFile(r.at(path), nil, 0)
}

// proc mounts the product's own /proc, where it sees nothing but itself.
func (r root) proc(st status) error {
	if err := os.Mkdir(r.at("/proc"), 0o555); err != nil {
		return fmt.Errorf("make /proc: %w", err)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("proc", r.at("/proc"), "proc", flags, "hidepid=invisible"); err != nil {
		if err := unix.Mount("proc", r.at("/proc"), "proc", flags, ""); err != nil {
			return fmt.Errorf("mount /proc: %w", err)
		}
		st.note("hidepid", "the kernel's /proc cannot hide other users' processes", "none needed: a product's /proc has only its own processes")
	}
	for _, name := range readOnlyProc {
		if err := r.mask("/proc/"+name, "/proc/"+name, unix.MOUNT_ATTR_RDONLY); err != nil {
			return err
		}
	}
	for _, name := range hidden {
		if err := r.mask("/dev/null", "/proc/"+name, unix.MOUNT_ATTR_RDONLY); err != nil {
			return err
		}
	}
	return nil
}

// mask covers a file or directory of the new /proc, if the kernel has it.
func (r root) mask(source, target string, attr int) error {
	var st unix.Stat_t
	if err := unix.Stat(r.at(target), &st); err != nil {
		return nil // not in this kernel: nothing to cover
	}
	if source == "/dev/null" && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := unix.Mount("none", r.at(target), "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=0,nr_inodes=1"); err != nil {
			return fmt.Errorf("hide %s: %w", target, err)
		}
		return nil
	}
	if err := attach(r.at(source), r.at(target), attr|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, false); err != nil {
		return fmt.Errorf("mask %s: %w", target, err)
	}
	return nil
}

// bind shows the host's source at target in the new root.
func (r root) bind(source, target string, attr int, recursive bool) error {
	st, err := os.Stat(source)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(r.at(target)), 0o755); err != nil {
		return err
	}
	if st.IsDir() {
		err = os.MkdirAll(r.at(target), 0o755)
	} else if _, e := os.Lstat(r.at(target)); e != nil {
		err = os.WriteFile(r.at(target), nil, 0o644)
	}
	if err != nil {
		return err
	}
	return attach(source, r.at(target), attr, recursive)
}

// attach mounts a copy of source, with attr already in force, on target.
func attach(source, target string, attr int, recursive bool) error {
	fd, err := copyMount(source, attr, recursive)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach mount: %w", err)
	}
	return nil
}

// copyMount returns a copy of source, with attr in force, that is mounted nowhere yet.
func copyMount(source string, attr int, recursive bool) (int, error) {
	deep := uint(0)
	if recursive {
		deep = unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|deep)
	if err != nil {
		return -1, fmt.Errorf("copy mount: %w", err)
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|deep, &unix.MountAttr{Attr_set: uint64(attr)}); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("set mount attributes: %w", err)
	}
	return fd, nil
}

// enter makes the new root this process's root, read-only, and lets go of the old one.
func (r root) enter() error {
	if err := unix.MountSetattr(unix.AT_FDCWD, r.dir, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}); err != nil {
		return fmt.Errorf("make root read-only: %w", err)
	}
	if err := unix.Chdir(r.dir); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	// Both arguments "." stacks the old root on the new one, so no directory for it is needed (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave old root: %w", err)
	}
	if err := unix.Chdir(ProductDir); err != nil {
		return fmt.Errorf("enter product folder: %w", err)
	}
	return nil
}
