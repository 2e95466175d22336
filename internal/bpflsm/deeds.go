package bpflsm

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// deed does something harmless that the kernel asks a hook about. An error says that it could not be done; one that the kernel has only
// after it asked is none.
type deed func(dir string) error

// deeds are by hook. What has none cannot be called without telling others of an attack, or without another program: modules, another
// kernel, signals of descriptors, what is executed.
var deeds = map[string]deed{
	"bpf":     func(string) error { _, err := ebpf.ProgramGetNextID(0); return unless(err, unix.ENOENT) },
	"bpf_map": func(string) error { return newMap() },

	"file_ioctl": func(dir string) error {
		return withFile(dir, func(f *os.File) error { _, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCINQ); return err })
	},
	"file_mprotect":     func(string) error { return mapMemory() },
	"file_open":         func(dir string) error { return withFile(dir, func(*os.File) error { return nil }) },
	"inode_create":      func(dir string) error { return os.WriteFile(dir+"/new", nil, 0o600) },
	"inode_link":        func(dir string) error { return os.Link(dir+"/file", dir+"/link") },
	"inode_mkdir":       func(dir string) error { return os.Mkdir(dir+"/made", 0o700) },
	"inode_mknod":       func(dir string) error { return unix.Mkfifo(dir+"/pipe", 0o600) },
	"inode_remove_acl":  func(dir string) error { return unless(unix.Removexattr(dir+"/file", accessList), unix.ENODATA) },
	"inode_removexattr": func(dir string) error { return unless(unix.Removexattr(dir+"/file", attribute), unix.ENODATA) },
	"inode_rename":      func(dir string) error { return os.Rename(dir+"/misnamed", dir+"/named") },
	"inode_rmdir":       func(dir string) error { return unix.Rmdir(dir + "/empty") },
	"inode_set_acl":     func(dir string) error { return unix.Setxattr(dir+"/file", accessList, []byte{2, 0, 0, 0}, 0) },
	"inode_setattr":     func(dir string) error { return os.Chmod(dir+"/file", 0o640) },
	"inode_setxattr":    func(dir string) error { return unix.Setxattr(dir+"/file", attribute, []byte("x"), 0) },
	"inode_symlink":     func(dir string) error { return os.Symlink("file", dir+"/symlink") },
	"inode_unlink":      func(dir string) error { return unix.Unlink(dir + "/unwanted") },
	"path_notify":       watch,

	"bprm_check_security": func(string) error { return execNothing() },
	"mmap_file":           func(string) error { return mapMemory() },

	"locked_down": func(string) error { return readable("/proc/kcore") },
	"move_mount": func(dir string) error {
		return unless(unix.MoveMount(unix.AT_FDCWD, dir, unix.AT_FDCWD, dir, 0), unix.EINVAL)
	},
	"perf_event_alloc": func(string) error { return countNothing() },

	"sb_mount":       func(dir string) error { return unless(unix.Mount("", dir, "", unix.MS_PRIVATE, ""), unix.EINVAL) },
	"sb_pivotroot":   func(string) error { return unless(unix.PivotRoot("/", "/"), unix.EBUSY, unix.EINVAL) },
	"sb_remount":     func(string) error { return remount() },
	"sb_umount":      func(string) error { return unless(unix.Unmount("/", unix.MNT_EXPIRE), unix.EINVAL) }, // the root does not expire
	"socket_connect": func(string) error { return datagram(unix.Connect) },
	"socket_sendmsg": func(string) error {
		return datagram(func(fd int, to unix.Sockaddr) error { return unix.Sendto(fd, nil, 0, to) })
	},
	"task_kill":       func(string) error { return unix.Kill(unix.Getpid(), 0) },
	"task_movememory": func(string) error { return call(unix.SYS_MOVE_PAGES, 1, 0, 0) }, // no pages

	"ptrace_access_check": func(string) error { _, err := os.Readlink("/proc/1/exe"); return err },
	"task_setioprio":      ioprio,
	"task_setnice":        renice,
	"task_setrlimit":      limit,
	"task_setscheduler":   schedule,
}

const (
	attribute  = "trusted.bailey"
	accessList = "system.posix_acl_access"
)

// unless leaves out the errors that come after the question.
func unless(err error, late ...error) error {
	if slices.ContainsFunc(late, func(l error) bool { return errors.Is(err, l) }) {
		return nil
	}
	return err
}

// call makes a system call that takes no pointers.
func call(trap uintptr, a, b, c uintptr) error {
	if _, _, errno := unix.Syscall6(trap, a, b, c, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func newMap() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return err
	}
	return m.Close()
}

func withFile(dir string, do func(*os.File) error) error {
	f, err := os.Open(dir + "/file")
	if err != nil {
		return err
	}
	return errors.Join(do(f), f.Close())
}

func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

func watch(dir string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	_, err = unix.InotifyAddWatch(fd, dir, unix.IN_DELETE_SELF)
	return errors.Join(err, unix.Close(fd))
}

// mapMemory has the kernel change what a page may be used for.
func mapMemory() error {
	b, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	return errors.Join(unix.Mprotect(b, unix.PROT_READ), unix.Munmap(b))
}

// execNothing executes what is no program. Its first bytes are text: the kernel looks for no module that could.
func execNothing() error {
	fd, err := unix.MemfdCreate("hooks", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "hooks")
	defer f.Close()
	if _, err := f.WriteString("no program\n"); err != nil {
		return err
	}
	reader, err := os.Open("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return err
	}
	defer reader.Close()
	if err := f.Close(); err != nil {
		return err // nobody executes what somebody can write
	}
	var name byte // the empty one
	arguments, none := [2]*byte{&name}, [1]*byte{}
	_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, reader.Fd(), uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(&arguments)),
		uintptr(unsafe.Pointer(&none)), unix.AT_EMPTY_PATH, 0)
	return unless(errno, unix.ENOEXEC)
}

// countNothing opens a counter that never counts.
func countNothing() error {
	fd, err := unix.PerfEventOpen(&unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY, Size: unix.PERF_ATTR_SIZE_VER0,
	}, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// remount reconfigures a filesystem that is mounted nowhere.
func remount() error {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return err
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(mnt)
	pick, err := unix.Fspick(mnt, "", unix.FSPICK_CLOEXEC|unix.FSPICK_EMPTY_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(pick)
	return unix.FsconfigReconfigure(pick)
}

// datagram has nothing sent: the port is discard's, on this machine.
func datagram(do func(int, unix.Sockaddr) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(do(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}), unix.Close(fd))
}

func ioprio(string) error {
	const thisThread = 1
	now, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, thisThread, 0, 0)
	if errno != 0 {
		return errno
	}
	return call(unix.SYS_IOPRIO_SET, thisThread, 0, now)
}

func renice(string) error {
	now, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return err
	}
	return unix.Setpriority(unix.PRIO_PROCESS, 0, 20-now)
}

func limit(string) error {
	var now unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_CORE, nil, &now); err != nil {
		return err
	}
	return unix.Prlimit(0, unix.RLIMIT_CORE, &now, nil)
}

func schedule(string) error {
	now, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return err
	}
	return unix.SchedSetAttr(0, now, 0)
}
