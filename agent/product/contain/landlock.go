package contain

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	landRead  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	landExec  = landRead | unix.LANDLOCK_ACCESS_FS_EXECUTE
	landWrite = landRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	landFileOnly = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
)

// landlockABI is what each version of the kernel's Landlock can bound, cumulatively (landlock(7)).
func landlockABI(version int) unix.LandlockRulesetAttr {
	a := unix.LandlockRulesetAttr{Handled_access_fs: 1<<13 - 1}
	if version >= 2 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if version >= 3 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if version >= 4 {
		a.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if version >= 5 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if version >= 6 {
		a.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	return a
}

// landlockSize is the length of the attribute structure that each version knows.
func landlockSize(version int) uintptr {
	switch {
	case version >= 6:
		return 24
	case version >= 4:
		return 16
	}
	return 8
}

// restrictFiles puts a Landlock domain round this thread: a second wall that stands should a mount ever be wrong, and the
// only one that follows files which are handed in from outside. Kernels without it get a note.
func restrictFiles(s *Spec, self int, st status) error {
	version, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 {
		st.note("landlock", fmt.Sprintf("the kernel has no Landlock (%v): products are contained by namespaces, seccomp and their user alone", e),
			"add landlock to the kernel's lsm= parameter, or use a kernel that has it")
		return nil
	}
	attr := landlockABI(int(version))
	if s.Network {
		attr.Handled_access_net &^= unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	fd, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), landlockSize(int(version)), 0)
	if e != 0 {
		return fmt.Errorf("make landlock rules: %w", e)
	}
	defer func() { _ = unix.Close(int(fd)) }()
	rules := ruleset{fd: int(fd), handled: attr.Handled_access_fs}
	for _, step := range rules.all(s, self) {
		if err := step(); err != nil {
			return fmt.Errorf("make landlock rules: %w", err)
		}
	}
	if _, _, e := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); e != 0 {
		return fmt.Errorf("enforce landlock rules: %w", e)
	}
	if version < 6 {
		st.note("landlock_scope", fmt.Sprintf("the kernel's Landlock is version %d; version 6 also keeps signals and abstract sockets inside", version),
			"none needed: the pid and network namespaces keep them inside too")
	}
	return nil
}

type ruleset struct {
	fd      int
	handled uint64
}

func (r ruleset) all(s *Spec, self int) []func() error {
	state := uint64(landWrite)
	if s.StateReadOnly {
		state = landRead
	}
	steps := []func() error{
		func() error { return r.path("/", unix.LANDLOCK_ACCESS_FS_READ_DIR) },
		func() error { return r.path("/etc", landRead) },
		func() error { return r.path("/proc", landRead) },
		func() error { return r.path(ProductDir, landExec) },
		func() error { return r.path(StateDir, state) },
		func() error { return r.path(TmpDir, landWrite) },
		func() error { return r.allow(self, landExec) }, // the next program of this very process
	}
	for _, d := range devices {
		steps = append(steps, func() error {
			return r.path("/dev/"+d, unix.LANDLOCK_ACCESS_FS_READ_FILE|unix.LANDLOCK_ACCESS_FS_WRITE_FILE)
		})
	}
	for _, p := range s.Read {
		steps = append(steps, func() error {
			if err := r.path(p, landExec); !errors.Is(err, os.ErrNotExist) {
				return err
			}
			return nil // it was not on the host either
		})
	}
	return steps
}

func (r ruleset) path(path string, access uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := r.allow(fd, access); err != nil {
		return fmt.Errorf("allow %s: %w", path, err)
	}
	return nil
}

func (r ruleset) allow(fd int, access uint64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= landFileOnly
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access & r.handled, Parent_fd: int32(fd)}
	if _, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(r.fd), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); e != 0 {
		return e
	}
	return nil
}
