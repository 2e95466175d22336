package contain

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newestReviewed is the last system call (file_setattr, Linux 6.17) that was looked at for this filter. Later ones do not
// exist for a product until someone has: a list of what is refused is only safe if nothing can be added behind its back.
// Numbers above 423 are the same on every architecture.
const newestReviewed = 469

// Offsets in struct seccomp_data.
const (
	dataNR   = 0
	dataArch = 4
	dataArg0 = 16 // the low half: both architectures are little-endian
	dataArg1 = 24
	dataArg2 = 32
)

const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWTIME

// denied is refused with EPERM on every architecture. No runtime needs any of it to serve a product; each has either been
// the entry point of kernel exploits, or reaches what namespaces do not cover.
var denied = []int{
	// mounts and namespaces
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN, unix.SYS_FSCONFIG,
	unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_OPEN_TREE_ATTR, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
	// other processes
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
	unix.SYS_MIGRATE_PAGES, unix.SYS_MOVE_PAGES, unix.SYS_PERF_EVENT_OPEN,
	// the kernel itself
	unix.SYS_BPF, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_REBOOT, unix.SYS_SYSLOG,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_VHANGUP, unix.SYS_NFSSERVCTL, unix.SYS_LSM_SET_SELF_ATTR,
	// wide interfaces with a history of holes
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, unix.SYS_USERFAULTFD, unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	unix.SYS_MEMFD_SECRET,
	// files past the root, and marks on them
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_FANOTIFY_INIT, unix.SYS_FANOTIFY_MARK,
	// clocks and scheduling
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX, unix.SYS_SCHED_SETATTR,
}

// filter assembles the program: kill what comes from a foreign architecture, refuse the lists above, allow the rest.
func filter() []unix.SockFilter {
	const (
		kill  = unix.SECCOMP_RET_KILL_PROCESS
		allow = unix.SECCOMP_RET_ALLOW
	)
	var p program
	p.load(dataArch)
	p.unless(unix.BPF_JEQ, auditArch, kill)
	p.load(dataNR)
	if foreignBit != 0 {
		p.when(unix.BPF_JGE, foreignBit, kill)
	}
	p.when(unix.BPF_JGT, newestReviewed, errno(unix.ENOSYS))
	// The flags of clone3 are in memory, out of a filter's sight; C libraries fall back to clone on ENOSYS.
	p.when(unix.BPF_JEQ, unix.SYS_CLONE3, errno(unix.ENOSYS))
	for _, list := range [][]int{denied, deniedArch} {
		for _, nr := range list {
			p.when(unix.BPF_JEQ, uint32(nr), errno(unix.EPERM))
		}
	}
	p.args(unix.SYS_CLONE, dataArg0, func(p *program) {
		p.when(unix.BPF_JSET, namespaceFlags, errno(unix.EPERM))
		p.ret(allow)
	})
	p.args(unix.SYS_SOCKET, dataArg0, func(p *program) {
		p.when(unix.BPF_JEQ, unix.AF_UNIX, allow)
		// What is left are AF_INET (2) and AF_INET6 (10), and of them what Landlock's TCP rules see: MPTCP passes them by.
		*p = append(*p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 2, K: unix.AF_INET})
		*p = append(*p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: unix.AF_INET6})
		p.ret(errno(unix.EAFNOSUPPORT))
		p.load(dataArg2)
		for _, protocol := range []uint32{0, unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			p.when(unix.BPF_JEQ, protocol, allow)
		}
		p.ret(errno(unix.EPROTONOSUPPORT))
	})
	p.args(unix.SYS_SCHED_SETSCHEDULER, dataArg1, func(p *program) {
		for _, policy := range []uint32{unix.SCHED_NORMAL, unix.SCHED_BATCH, unix.SCHED_IDLE} {
			p.when(unix.BPF_JEQ, policy, allow)
		}
		p.ret(errno(unix.EPERM))
	})
	p.args(unix.SYS_PERSONALITY, dataArg0, func(p *program) {
		p.when(unix.BPF_JEQ, 0, allow)
		p.when(unix.BPF_JEQ, 0xffffffff, allow) // only reads it
		p.ret(errno(unix.EPERM))
	})
	p.args(unix.SYS_IOCTL, dataArg1, func(p *program) {
		p.when(unix.BPF_JEQ, unix.TIOCSTI, errno(unix.EPERM))
		p.when(unix.BPF_JEQ, unix.TIOCLINUX, errno(unix.EPERM))
		p.ret(allow)
	})
	p.ret(allow)
	return p
}

func errno(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

// program is a classic BPF program that is being assembled.
type program []unix.SockFilter

func (p *program) load(offset uint32) {
	*p = append(*p, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset})
}

func (p *program) ret(action uint32) {
	*p = append(*p, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action})
}

// when returns action if the comparison with k holds.
func (p *program) when(op uint16, k, action uint32) {
	*p = append(*p, unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jf: 1, K: k})
	p.ret(action)
}

// unless returns action if the comparison with k does not hold.
func (p *program) unless(op uint16, k, action uint32) {
	*p = append(*p, unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: 1, K: k})
	p.ret(action)
}

// args runs body, which must return on every path, with the argument at offset loaded if the system call is nr.
func (p *program) args(nr uint32, offset uint32, body func(*program)) {
	var b program
	b.load(offset)
	body(&b)
	*p = append(*p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: uint8(len(b)), K: nr})
	*p = append(*p, b...)
}

// filterSyscalls puts the filter on this thread, and on everything that it executes or forks.
func filterSyscalls() error {
	p := filter()
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	if _, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); e != 0 {
		return fmt.Errorf("filter system calls: %w", e)
	}
	return nil
}
