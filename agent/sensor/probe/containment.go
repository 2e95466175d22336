package probe

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"bailey/agent/health"
	"bailey/internal/lsm"
)

const (
	soPeerPIDFD         = 77         // SO_PEERPIDFD in asm-generic/socket.h
	seccompKillProcess  = 0x80000000 // SECCOMP_RET_KILL_PROCESS
	seccompGetAvailable = 2          // SECCOMP_GET_ACTION_AVAIL
	pidfdInfoSize       = 64         // PIDFD_INFO_SIZE_VER0
	landlockVersion     = 1          // LANDLOCK_CREATE_RULESET_VERSION
)

func processFeatures() []Feature {
	const newer = "use a newer kernel; Bailey works without"
	return []Feature{
		feature("pidfd.open", "a product is watched and ended by descriptor, never by a pid that may be another's", "5.3",
			"use a newer kernel", health.Degraded, func() error {
				fd, err := unix.PidfdOpen(os.Getpid(), 0)
				if err != nil {
					return fmt.Errorf("open a pidfd: %w", err)
				}
				return unix.Close(fd)
			}),
		feature("pidfd.info", "a process's ids are read from its descriptor", "6.13", newer, health.OK, checkPidfdInfo),
		feature("pidfd.peer", "a socket's other end is named by descriptor", "6.5", newer, health.OK, checkPeerPidfd),
	}
}

func containmentFeatures() []Feature {
	features := []Feature{
		feature("containment.seccomp", "products are limited to the system calls that they need", "4.14",
			"use a kernel with CONFIG_SECCOMP_FILTER", health.Failed, checkSeccomp),
		feature("containment.landlock", "products are kept from files a second time", "5.13",
			lsm.Remedy("landlock")+"; until then mount namespaces keep products from files alone", health.Degraded, checkLandlock),
	}
	for _, ns := range []struct{ file, gives string }{
		{"mnt", "products see only their own files"}, {"pid", "products see only their own processes"},
		{"ipc", "products share no memory or queues with others"}, {"net", "products have no network but a loopback of their own"},
		{"uts", "products have a host name of their own"},
	} {
		features = append(features, feature("containment.namespace_"+ns.file, ns.gives, "3.8",
			"use a kernel with all namespaces (CONFIG_NAMESPACES)", health.Failed, func() error {
				_, err := os.Stat("/proc/self/ns/" + ns.file)
				return err
			}))
	}
	return append(features, feature("containment.namespace_user", "tests run a contained product without root", "3.8",
		"set user.max_user_namespaces above 0; the agent does not need it", health.OK, func() error {
			if _, err := os.Stat("/proc/self/ns/user"); err != nil {
				return err
			}
			data, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
			if err == nil && string(data) == "0\n" {
				err = errors.New("user.max_user_namespaces is 0")
			}
			return err
		}))
}

func checkPidfdInfo() error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("open a pidfd: %w", err)
	}
	defer unix.Close(fd)
	var info [pidfdInfoSize]byte
	const request = 3<<30 | pidfdInfoSize<<16 | 0xFF<<8 | 11 // _IOWR(PIDFS_IOCTL_MAGIC, 11, first version)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&info))); errno != 0 {
		return fmt.Errorf("ask a pidfd for its process: %w", errno)
	}
	return nil
}

func checkPeerPidfd() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket pair: %w", err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	fd, err := unix.GetsockoptInt(pair[0], unix.SOL_SOCKET, soPeerPIDFD)
	if err != nil {
		return fmt.Errorf("ask a socket for its peer: %w", err)
	}
	return unix.Close(fd)
}

func checkSeccomp() error {
	action := uint32(seccompKillProcess)
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, seccompGetAvailable, 0, uintptr(unsafe.Pointer(&action))); errno != 0 {
		return fmt.Errorf("ask for seccomp's actions: %w", errno)
	}
	return nil
}

// LandlockABI returns the kernel's Landlock version, 0 if it has none.
func LandlockABI() (int, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, landlockVersion)
	if errno != 0 {
		return 0, fmt.Errorf("ask for Landlock's version: %w", errno)
	}
	return int(abi), nil
}

func checkLandlock() error {
	_, err := LandlockABI()
	return err
}
