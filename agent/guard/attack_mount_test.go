package guard

import (
	"errors"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

func mountAttacks() []attack {
	const mount, umount, move, remount = "sb_mount", "sb_umount", "move_mount", "sb_remount"
	return []attack{
		{name: "bind_over_directory", hook: mount, do: func(s *scene) error { return unix.Mount(s.Elsewhere, s.Dir, "", unix.MS_BIND, "") }},
		{name: "bind_over_file", hook: mount, do: func(s *scene) error {
			return unix.Mount(s.Elsewhere+"/file", s.Config(), "", unix.MS_BIND, "")
		}},
		{name: "bind_over_program", hook: mount, do: func(s *scene) error {
			return unix.Mount(s.Elsewhere+"/file", s.Program, "", unix.MS_BIND, "")
		}},
		{name: "tmpfs_over_directory", hook: mount, do: func(s *scene) error { return unix.Mount("tmpfs", s.Dir, "tmpfs", 0, "") }},
		{name: "tmpfs_over_above", hook: mount, do: func(s *scene) error { return unix.Mount("tmpfs", s.Above, "tmpfs", 0, "") }},
		{name: "tmpfs_over_mount_point", hook: mount, do: func(s *scene) error { return unix.Mount("tmpfs", s.Mount, "tmpfs", 0, "") }},
		{name: "tmpfs_over_bpffs", hook: mount, do: func(s *scene) error { return unix.Mount("tmpfs", "/sys/fs/bpf", "tmpfs", 0, "") }},
		{name: "from_peer_namespace", hook: mount, do: func(s *scene) error {
			runtime.LockOSThread()
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil { // its mounts stay peers
				return err
			}
			return unix.Mount("tmpfs", s.Dir, "tmpfs", 0, "")
		}},
		{name: "fsopen_move_mount", hook: move, do: func(s *scene) error {
			fs, err := unix.Fsopen("tmpfs", 0)
			if err != nil {
				return err
			}
			if err := call(unix.SYS_FSCONFIG, uintptr(fs), unix.FSCONFIG_CMD_CREATE, 0, 0, 0); err != nil {
				return err
			}
			m, err := unix.Fsmount(fs, 0, 0)
			if err != nil {
				return err
			}
			return unix.MoveMount(m, "", unix.AT_FDCWD, s.Dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
		}},
		{name: "open_tree_move_mount", hook: move, do: func(s *scene) error {
			tree, err := unix.OpenTree(unix.AT_FDCWD, s.Elsewhere, unix.OPEN_TREE_CLONE)
			if err != nil {
				return err
			}
			return unix.MoveMount(tree, "", unix.AT_FDCWD, s.Dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
		}},
		{name: "move_mount_away", hook: move, do: func(s *scene) error {
			return away(func(to string) error { return unix.MoveMount(unix.AT_FDCWD, s.Mount, unix.AT_FDCWD, to, 0) })
		}},
		{name: "mount_move_away", hook: move, do: func(s *scene) error {
			return away(func(to string) error { return unix.Mount(s.Mount, to, "", unix.MS_MOVE, "") })
		}},
		{name: "umount", hook: umount, do: func(s *scene) error { return unix.Unmount(s.Mount, unix.MNT_DETACH) }},
		{name: "umount_bpffs", hook: umount, do: func(s *scene) error { return restoring("/sys/fs/bpf", "bpf", unix.MNT_DETACH) }},
		{name: "umount_sys", hook: umount, do: func(s *scene) error {
			if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil {
				return err
			}
			for _, m := range [][2]string{{"/sys", "sysfs"}, {"/sys/fs/cgroup", "cgroup2"}, {"/sys/fs/bpf", "bpf"}, {"/sys/kernel/security", "securityfs"}, {"/sys/kernel/tracing", "tracefs"}} {
				if err := unix.Mount(m[1], m[0], m[1], 0, ""); err != nil {
					return err
				}
			}
			return errEffect
		}},
		{name: "umount_from_peer_namespace", hook: umount, control: "the mount itself is not propagated: its parent is private here", do: func(s *scene) error {
			runtime.LockOSThread()
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return err
			}
			return unix.Unmount(s.Mount, unix.MNT_DETACH)
		}},
		{name: "remount_read_only", hook: mount, do: func(s *scene) error {
			return unix.Mount("", s.Mount, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}, control: "busy: the victim has a file open for writing"},
		{name: "bind_remount_read_only", hook: mount, do: func(s *scene) error {
			return unix.Mount("", s.Mount, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
		}, control: "busy: the victim has a file open for writing"},
		{name: "bind_remount_noexec", hook: mount, do: func(s *scene) error {
			return unix.Mount("", s.Mount, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOEXEC, "")
		}},
		{name: "remount_bpffs_read_only", hook: mount, do: func(s *scene) error {
			if err := unix.Mount("", "/sys/fs/bpf", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
				return err
			}
			return errors.Join(errEffect, unix.Mount("", "/sys/fs/bpf", "", unix.MS_REMOUNT|unix.MS_BIND, ""))
		}},
		{name: "fspick_reconfigure", hook: remount, do: func(s *scene) error {
			fs, err := unix.Fspick(unix.AT_FDCWD, s.Mount, 0)
			if err != nil {
				return err
			}
			key, value := []byte("errors\x00"), []byte("continue\x00")
			if err := call(unix.SYS_FSCONFIG, uintptr(fs), unix.FSCONFIG_SET_STRING, uintptr(unsafe.Pointer(&key[0])), uintptr(unsafe.Pointer(&value[0])), 0); err != nil {
				return err
			}
			return effectUnless(call(unix.SYS_FSCONFIG, uintptr(fs), unix.FSCONFIG_CMD_RECONFIGURE, 0, 0, 0))
		}},
		{name: "mount_setattr_noexec", possible: "no LSM hook; an agent with private mounts does not see it", do: func(s *scene) error {
			return unix.MountSetattr(unix.AT_FDCWD, s.Mount, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOEXEC})
		}},
		{name: "pivot_root", hook: "sb_pivotroot", do: func(s *scene) error {
			const root = "/tmp/root" // where the mount above is private, which pivot_root(2) wants
			if err := errors.Join(os.MkdirAll(root, 0o755), unix.Mount("tmpfs", root, "tmpfs", 0, "")); err != nil {
				return err
			}
			defer unix.Unmount(root, unix.MNT_DETACH) //nolint:errcheck // of the attacker
			if err := os.Mkdir(root+"/old", 0o755); err != nil {
				return err
			}
			if err := unix.PivotRoot(root, root+"/old"); err != nil {
				return err
			}
			// And back, so that the control leaves a machine.
			return errors.Join(errEffect, unix.PivotRoot("/old", "/old"+root), os.Chdir("/"))
		}},
	}
}

// away moves a mount, and removes it, so that the control leaves a machine.
func away(move func(to string) error) error {
	const to = "/tmp/away"
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if err := move(to); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return errors.Join(errEffect, unix.Unmount(to, unix.MNT_DETACH), os.Remove(to))
}

// restoring unmounts and mounts again, so that the control leaves a machine.
func restoring(path, fstype string, flags int) error {
	if err := unix.Unmount(path, flags); err != nil {
		return err
	}
	return errors.Join(errEffect, unix.Mount(fstype, path, fstype, 0, ""))
}

// inNamespace runs f where its mounts are its own.
func inNamespace(f func() error) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	return f()
}
