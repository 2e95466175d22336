package file

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The wrappers below differ from those of x/sys/unix in two ways: they take buffers instead of strings, so that they do not
// allocate, and they return the bare errno.

func sysRead(fd int, buf []byte) (int, unix.Errno) {
	n, _, errno := unix.Syscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	return int(n), errno
}

func sysClose(fd int) { _, _, _ = unix.Syscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// sysRespond writes one struct fanotify_response. The kernel takes it under a spin lock and never sleeps, so that the
// scheduler need not be told.
func sysRespond(group int, r *unix.FanotifyResponse) unix.Errno {
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(group), uintptr(unsafe.Pointer(r)), unsafe.Sizeof(*r))
		if errno != unix.EINTR {
			return errno
		}
	}
}

const statxMask = unix.STATX_BASIC_STATS | unix.STATX_MNT_ID

// sysStat reads what is known of fd without asking a remote server. path is a NUL-terminated name below dirfd, or a lone NUL.
func sysStat(dirfd int, path []byte, st *unix.Statx_t) unix.Errno {
	flags := uintptr(unix.AT_EMPTY_PATH | unix.AT_STATX_DONT_SYNC | unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT)
	_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(dirfd), uintptr(unsafe.Pointer(&path[0])), flags, statxMask,
		uintptr(unsafe.Pointer(st)), 0)
	return errno
}

// sysReadlink reads the link at the NUL-terminated path into buf.
func sysReadlink(path, buf []byte) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_READLINKAT, uintptr(cwd), uintptr(unsafe.Pointer(&path[0])),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
	return int(n), errno
}

// cwd is AT_FDCWD in a form that converts to uintptr.
const cwd = ^uintptr(99)

// sysMarkFD changes the mark on the object behind fd, which must not be O_PATH.
func sysMarkFD(group int, flags uint, mask uint64, fd int) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_FANOTIFY_MARK, uintptr(group), uintptr(flags), uintptr(mask), uintptr(fd), 0, 0)
	return errno
}

// sysMarkPath changes the mark on the object at the NUL-terminated path.
func sysMarkPath(group int, flags uint, mask uint64, path []byte) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_FANOTIFY_MARK, uintptr(group), uintptr(flags), uintptr(mask), cwd,
		uintptr(unsafe.Pointer(&path[0])), 0)
	return errno
}

// sysOpenHandle opens the object that handle (a struct file_handle as the kernel wrote it) names on root's file system.
func sysOpenHandle(root int, handle []byte, flags int) (int, unix.Errno) {
	fd, _, errno := unix.Syscall(unix.SYS_OPEN_BY_HANDLE_AT, uintptr(root), uintptr(unsafe.Pointer(&handle[0])), uintptr(flags))
	return int(fd), errno
}

// sysPoll waits for the descriptors, for ever when timeout is negative.
func sysPoll(fds []unix.PollFd, timeoutMS int) unix.Errno {
	var ts unix.Timespec
	var tp uintptr
	if timeoutMS >= 0 {
		ts = unix.NsecToTimespec(int64(timeoutMS) * 1_000_000)
		tp = uintptr(unsafe.Pointer(&ts))
	}
	_, _, errno := unix.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), tp, 0, 0, 0)
	return errno
}

const fdLinkPrefix = "/proc/self/fd/"

// fdLink writes the NUL-terminated path of fd's magic link into buf and returns it.
func fdLink(buf *[32]byte, fd int) []byte {
	n := copy(buf[:], fdLinkPrefix)
	var digits [20]byte
	i := len(digits)
	for {
		i--
		digits[i] = byte('0' + fd%10)
		fd /= 10
		if fd == 0 {
			break
		}
	}
	n += copy(buf[n:], digits[i:])
	buf[n] = 0
	return buf[:n+1]
}
