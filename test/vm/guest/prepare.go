package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// prepare loads the modules, moves the system to a tmpfs (the initramfs itself cannot be pivoted away from, which containment
// does), and mounts what a system has.
func prepare() error {
	if err := loadModules(); err != nil {
		return err
	}
	if err := moveRoot(); err != nil {
		return fmt.Errorf("move to a tmpfs: %w", err)
	}
	for _, m := range [][4]string{
		{"proc", "/proc", "proc", ""}, {"sysfs", "/sys", "sysfs", ""}, {"tmpfs", "/tmp", "tmpfs", "mode=1777"}, {"tmpfs", "/run", "tmpfs", "mode=755"},
		{"tmpfs", "/dev/shm", "tmpfs", "mode=1777"}, {"devpts", "/dev/pts", "devpts", "ptmxmode=666"},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", ""}, {"bpf", "/sys/fs/bpf", "bpf", ""}, {"securityfs", "/sys/kernel/security", "securityfs", ""},
		{"tracefs", "/sys/kernel/tracing", "tracefs", ""},
	} {
		if err := mount(m[0], m[1], m[2], m[3]); err != nil {
			return err
		}
	}
	if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory +pids +cpu"), 0); err != nil {
		return fmt.Errorf("enable the cgroup controllers: %w", err)
	}
	// Tests that fill this queue take half a minute with the default of 16384.
	if err := os.WriteFile("/proc/sys/fs/fanotify/max_queued_events", []byte("2048"), 0); err != nil {
		return fmt.Errorf("shorten the event queue: %w", err)
	}
	return loopback()
}

func mount(source, target, fstype, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", target, err)
	}
	if err := unix.Mount(source, target, fstype, 0, data); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

// loadModules loads what the host packed; the devices appear.
func loadModules() error {
	if err := mount("devtmpfs", "/dev", "devtmpfs", ""); err != nil {
		return err
	}
	modules, err := os.ReadFile("/modules/order")
	if err != nil {
		return fmt.Errorf("read the module list: %w", err)
	}
	for _, m := range strings.Fields(string(modules)) {
		if err := load("/modules/" + m); err != nil {
			return err
		}
	}
	return nil
}

func load(module string) error {
	f, err := os.Open(module)
	if err != nil {
		return fmt.Errorf("load a module: %w", err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
		return fmt.Errorf("load %s: %w", module, err)
	}
	return nil
}

// moveRoot copies the initramfs to a tmpfs and makes that the root.
func moveRoot() error {
	if err := mount("root", "/new", "tmpfs", "mode=755"); err != nil {
		return err
	}
	for _, top := range []string{"bin", "etc", "lib", "lib64", "tests", "usr"} {
		if _, err := os.Stat("/" + top); err != nil {
			continue
		}
		if err := copyTree("/"+top, "/new/"+top); err != nil {
			return err
		}
		if err := os.RemoveAll("/" + top); err != nil {
			return err
		}
	}
	return becomeRoot("/new")
}

// becomeRoot makes dir, where a file system is mounted, the root.
func becomeRoot(dir string) error {
	if err := os.MkdirAll(dir+"/dev", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/dev", dir+"/dev", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := to + strings.TrimPrefix(name, from)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case info.Mode()&os.ModeSymlink != 0:
			link, err := os.Readlink(name)
			if err != nil {
				return err
			}
			_ = os.Remove(target) // a disk may have had one
			return os.Symlink(link, target)
		}
		return copyFile(name, target, info.Mode().Perm())
	})
}

func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// loopback brings lo up.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}
