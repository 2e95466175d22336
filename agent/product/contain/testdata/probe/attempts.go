package probe

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func sys(nr uintptr, args ...uintptr) (string, error) {
	var a [6]uintptr
	copy(a[:], args)
	r, _, e := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	if e != 0 {
		return "", e
	}
	return strconv.Itoa(int(r)), nil
}

func cstr(s string) uintptr {
	p, err := unix.BytePtrFromString(s)
	if err != nil {
		panic(err)
	}
	return uintptr(unsafe.Pointer(p))
}

func pidArg(args []string) uintptr {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		panic(err)
	}
	return uintptr(n)
}

func done(err error) (string, error) { return "", err }

var buf [4096]byte

var attempts = map[string]func([]string) (string, error){
	"read": func(a []string) (string, error) {
		b, err := os.ReadFile(a[0])
		return string(b[:min(len(b), 40)]), err
	},
	"create":   func(a []string) (string, error) { return done(os.WriteFile(a[0], []byte("x"), 0o755)) },
	"append":   func(a []string) (string, error) { return appendTo(a[0]) },
	"unlink":   func(a []string) (string, error) { return done(os.Remove(a[0])) },
	"list":     list,
	"chmod":    func(a []string) (string, error) { return done(os.Chmod(a[0], 0o777)) },
	"identity": identity,
	"execute":  func(a []string) (string, error) { return execute(a[0]) },
	"copy_and_execute": func(a []string) (string, error) {
		b, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			return "", err
		}
		path := filepath.Join(a[0], "copy")
		if err := os.WriteFile(path, b[:min(len(b), 1<<20)], 0o755); err != nil { // its end is missed only when it runs
			return "", err
		}
		return execute(path)
	},

	"connect":       func(a []string) (string, error) { return dial("unix", a[0]) },
	"connect_tcp":   func(a []string) (string, error) { return dial("tcp", a[0]) },
	"socket":        socket,
	"socket_listen": func([]string) (string, error) { _, err := net.Listen("tcp", "127.0.0.1:0"); return done(err) },

	"ptrace_attach": func(a []string) (string, error) { return done(unix.PtraceAttach(int(pidArg(a)))) },
	"ptrace_seize":  func(a []string) (string, error) { return sys(unix.SYS_PTRACE, 0x4206, pidArg(a)) },
	"vm_read":       vmRead,
	"kill":          func(a []string) (string, error) { return done(unix.Kill(int(pidArg(a)), unix.SIGKILL)) },
	"pidfd_getfd":   pidfdGetfd,

	"mount": func([]string) (string, error) { return done(unix.Mount("x", "/tmp", "tmpfs", 0, "")) },
	"remount": func(a []string) (string, error) {
		return done(unix.Mount("", a[0], "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	},
	"umount":    func(a []string) (string, error) { return done(unix.Unmount(a[0], unix.MNT_DETACH)) },
	"fsopen":    func([]string) (string, error) { return sys(unix.SYS_FSOPEN, cstr("tmpfs"), 0) },
	"open_tree": func([]string) (string, error) { return sys(unix.SYS_OPEN_TREE, 0, cstr("/"), unix.OPEN_TREE_CLONE) },
	"chroot":    func([]string) (string, error) { return done(unix.Chroot("/tmp")) },
	"mknod": func(a []string) (string, error) {
		return done(unix.Mknod(a[0]+"/dev", unix.S_IFBLK|0o666, int(unix.Mkdev(254, 0))))
	},

	"unshare_user": func([]string) (string, error) { return sys(unix.SYS_UNSHARE, unix.CLONE_NEWUSER) },
	"clone_user":   func([]string) (string, error) { return cloneUser() },
	"clone3":       func([]string) (string, error) { return sys(unix.SYS_CLONE3, 0, 0) },
	"setns":        func([]string) (string, error) { return setns() },

	"bpf": func([]string) (string, error) {
		return sys(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&[16]uint32{2, 4, 4, 1})), 64)
	},
	"perf":        func([]string) (string, error) { return perf() },
	"io_uring":    func([]string) (string, error) { return sys(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&buf))) },
	"userfaultfd": func([]string) (string, error) { return sys(unix.SYS_USERFAULTFD, 1) },
	"keyctl":      func([]string) (string, error) { return sys(unix.SYS_KEYCTL, 0, ^uintptr(2), 1) },
	"add_key": func([]string) (string, error) {
		return sys(unix.SYS_ADD_KEY, cstr("user"), cstr("x"), cstr("y"), 1, ^uintptr(2))
	},
	"fanotify":    func([]string) (string, error) { return sys(unix.SYS_FANOTIFY_INIT, unix.FAN_REPORT_FID, 0) },
	"handle":      func(a []string) (string, error) { return handle(a[0]) },
	"settime":     func([]string) (string, error) { return done(unix.Settimeofday(&unix.Timeval{Sec: 1})) },
	"realtime":    func([]string) (string, error) { return realtime() },
	"priority":    func([]string) (string, error) { return done(unix.Setpriority(unix.PRIO_PROCESS, 0, -5)) },
	"oom_score":   func([]string) (string, error) { return done(os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0)) },
	"personality": func([]string) (string, error) { return sys(unix.SYS_PERSONALITY, 0x0040000) },
	"swapoff":     func([]string) (string, error) { return sys(unix.SYS_SWAPOFF, cstr("/none")) },
	"syslog":      func([]string) (string, error) { return sys(unix.SYS_SYSLOG, 3, uintptr(unsafe.Pointer(&buf)), 10) },
	"sethostname": func([]string) (string, error) { return done(unix.Sethostname([]byte("x"))) },
	"future_call": func([]string) (string, error) { return sys(600) },
	"setuid":      func([]string) (string, error) { return done(syscall.Setuid(0)) },
	"raise_limit": func([]string) (string, error) {
		return done(unix.Prlimit(0, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 50, Max: 1 << 50}, nil))
	},

	"write_large": writeLarge,
	"many_files":  manyFiles,
	"many_procs":  manyProcs,
	"eat_memory":  eatMemory,
	"fill_tmp":    fillTmp,
	"spin":        spin,
	"fork_bomb":   forkBomb,
	"sleep":       func([]string) (string, error) { time.Sleep(time.Hour); return "", nil },
	"stubborn": func([]string) (string, error) {
		ignoreTerm()
		fmt.Println("ready")
		time.Sleep(time.Hour)
		return "", nil
	},
	"flood":      flood,
	"exit":       func(a []string) (string, error) { n, _ := strconv.Atoi(a[0]); os.Exit(n); return "", nil },
	"crash":      func([]string) (string, error) { return done(unix.Kill(os.Getpid(), unix.SIGSEGV)) },
	"grow_state": growState,
	"receive":    receive,
	"child":      child,

	// speak prints what it is told, on both outputs, and says so.
	"speak": func([]string) (string, error) {
		var buf [4096]byte
		for {
			n, err := unix.Read(3, buf[:])
			if n <= 0 {
				return "", err
			}
			fmt.Printf("told %s\n", buf[:n])
			fmt.Fprintf(os.Stderr, "also %s\n", buf[:n])
			if _, err := unix.Write(3, []byte("said")); err != nil {
				return "", err
			}
		}
	},
	"connect_on_command": func(a []string) (string, error) {
		for {
			if n, err := unix.Read(3, buf[:]); n <= 0 {
				return "", err
			}
			out, err := dial("unix", a[0])
			if _, err := unix.Write(3, fmt.Append(nil, out, err)); err != nil {
				return "", err
			}
		}
	},
}

func appendTo(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return "", err
	}
	return "opened", f.Close()
}

func list(a []string) (string, error) {
	entries, err := os.ReadDir(a[0])
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " "), err
}

func execute(path string) (string, error) {
	out, err := self(path, "identity").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return string(out), nil
}

// identity says who this process is, from the kernel's own account.
func identity([]string) (string, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "", err
	}
	var out []string
	for _, line := range strings.Split(string(b), "\n") {
		for _, key := range []string{"Uid:", "Gid:", "Groups:", "CapEff:", "CapPrm:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:"} {
			if strings.HasPrefix(line, key) {
				out = append(out, strings.Join(strings.Fields(line), " "))
			}
		}
	}
	return strings.Join(out, "; "), nil
}

func dial(network, addr string) (string, error) {
	c, err := net.DialTimeout(network, addr, 2*time.Second)
	if err != nil {
		return "", err
	}
	return "connected", c.Close()
}

func socket(a []string) (string, error) {
	family, _ := strconv.Atoi(a[0])
	kind, _ := strconv.Atoi(a[1])
	protocol, _ := strconv.Atoi(a[2])
	fd, err := unix.Socket(family, kind, protocol)
	if err != nil {
		return "", err
	}
	return "opened", unix.Close(fd)
}

func vmRead(a []string) (string, error) {
	local := []unix.Iovec{{Base: &buf[0], Len: 8}}
	_, err := unix.ProcessVMReadv(int(pidArg(a)), local, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
	if errors.Is(err, unix.EFAULT) {
		return "allowed, nothing at that address", nil
	}
	return done(err)
}

func pidfdGetfd(a []string) (string, error) {
	fd, err := unix.PidfdOpen(int(pidArg(a)), 0)
	if err != nil {
		return "", err
	}
	_, err = unix.PidfdGetfd(fd, 1, 0)
	return done(err)
}

func cloneUser() (string, error) {
	cmd := self("/proc/self/exe", "identity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	return done(cmd.Run())
}

func setns() (string, error) {
	runtime.LockOSThread()
	fd, err := unix.Open("/proc/self/ns/uts", unix.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	return done(unix.Setns(fd, 0))
}

func perf() (string, error) {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Config: unix.PERF_COUNT_SW_CPU_CLOCK}
	_, err := unix.PerfEventOpen(&attr, 0, -1, -1, 0)
	return done(err)
}

func handle(path string) (string, error) {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	if err != nil {
		return "", err
	}
	dir, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	_, err = unix.OpenByHandleAt(dir, h, unix.O_RDONLY)
	return done(err)
}

func realtime() (string, error) {
	param := [1]int32{1}
	return sys(unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_FIFO, uintptr(unsafe.Pointer(&param)))
}

// child shows that a product may signal and see what it started itself.
func child([]string) (string, error) {
	cmd, err := spawn("sleep")
	if err != nil {
		return "", err
	}
	if err := cmd.Process.Kill(); err != nil {
		return "", err
	}
	_ = cmd.Wait()
	return "killed my own child", nil
}
