// Command guest is /init of the test kernel: it makes a usable system out of an initramfs, runs the tests it finds in
// /tests/list as root, and reports on the second serial port. It is no shell and starts nothing else.
//
// Invariant: it ends by itself with one line "VM-EXIT CODE" on the serial port, or the kernel has failed.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() != 1 {
		os.Exit(runAll(os.Stdout))
	}
	code := 1
	if err := prepare(); err != nil {
		fmt.Println("guest: " + err.Error())
	} else if report, err := openReport(); err != nil {
		fmt.Println("guest: " + err.Error())
	} else {
		code = reap(report)
		fmt.Fprintf(report, "VM-EXIT %d\n", code)
	}
	exit(code)
}

// reap runs the tests in a child and meanwhile does what tests expect of process 1: it buries orphans.
func reap(report *os.File) int {
	child, err := os.StartProcess("/proc/self/exe", []string{"guest"}, &os.ProcAttr{Files: []*os.File{nil, report, report}})
	if err != nil {
		fmt.Fprintln(report, err)
		return 1
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if pid == child.Pid {
			return status.ExitStatus()
		}
		if err != nil && err != unix.EINTR {
			fmt.Fprintln(report, err)
			return 1
		}
	}
}

// prepare loads the modules, moves the system to a tmpfs (the initramfs itself cannot be pivoted away from, which containment
// does), and mounts what a system has.
func prepare() error {
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
	for _, top := range []string{"bin", "etc", "tests", "usr"} {
		if err := copyTree("/"+top, "/new/"+top); err != nil {
			return err
		}
		if err := os.RemoveAll("/" + top); err != nil {
			return err
		}
	}
	if err := os.MkdirAll("/new/dev", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/dev", "/new/dev", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := os.Chdir("/new"); err != nil {
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
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, mode)
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

// openReport opens the second serial port without the terminal's line editing.
func openReport() (*os.File, error) {
	f, err := os.OpenFile("/dev/ttyS1", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the report's serial port: %w", err)
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("set up the report's serial port: %w", err)
	}
	t.Oflag, t.Lflag, t.Iflag = 0, 0, 0
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t); err != nil {
		return nil, fmt.Errorf("set up the report's serial port: %w", err)
	}
	return f, nil
}

// runAll runs every line "DIR PROGRAM SECONDS ARGS..." of the list and returns 0 when all pass.
func runAll(report io.Writer) int {
	list, err := os.ReadFile("/tests/list")
	if err != nil {
		fmt.Fprintln(report, err)
		return 1
	}
	code := 0
	for line := range strings.Lines(string(list)) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		limit, err := time.ParseDuration(f[2])
		if err != nil {
			fmt.Fprintln(report, err)
			return 1
		}
		if !runOne(report, f[0], f[1], limit, f[3:]) {
			code = 1
		}
	}
	return code
}

func runOne(report io.Writer, dir, program string, limit time.Duration, args []string) bool {
	begin := time.Now()
	fmt.Fprintf(report, "VM-RUN %s\n", program)
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, report, report
	cmd.Env = []string{"PATH=/bin", "HOME=/tmp", "TMPDIR=/tmp", "BAILEY_TEST_VM=1"}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(report, "VM-FAIL %s: %v\n", program, err)
		return false
	}
	timer := time.AfterFunc(limit, func() {
		_ = cmd.Process.Signal(syscall.SIGQUIT) // the test says where it hangs
		time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
	})
	defer timer.Stop()
	if err := cmd.Wait(); err != nil {
		fmt.Fprintf(report, "VM-FAIL %s: %v after %v\n", program, err, time.Since(begin).Round(time.Millisecond))
		return false
	}
	fmt.Fprintf(report, "VM-OK %s %v\n", program, time.Since(begin).Round(time.Millisecond))
	return true
}

// exit ends the virtual machine with a code that QEMU passes on.
func exit(code int) {
	unix.Sync()
	if port, err := os.OpenFile("/dev/port", os.O_WRONLY, 0); err == nil {
		_, _ = port.WriteAt([]byte{byte(code)}, 0x501)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}
