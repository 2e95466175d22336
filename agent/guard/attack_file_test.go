package guard

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// setACL is the hook for access lists; before 6.2 they are set as extended attributes.
const setACL = "inode_set_acl"

func fileAttacks() []attack {
	const open, attr, unlink, rename = "file_open", "inode_setattr", "inode_unlink", "inode_rename"
	return []attack{
		{name: "write", hook: open, do: func(s *scene) error { return writeAt(s.Config(), 0, "x") }},
		{name: "write_deep", hook: open, do: func(s *scene) error { return writeAt(s.Deep, 0, "x") }},
		{name: "write_program", hook: open, do: func(s *scene) error { return writeAt(s.Program, 0, "x") }},
		{name: "append", hook: open, do: func(s *scene) error { return openAnd(s.Config(), os.O_WRONLY|os.O_APPEND, "x") }},
		{name: "write_only", hook: open, do: func(s *scene) error { return openAnd(s.Config(), os.O_WRONLY|os.O_TRUNC, "") }},
		{name: "reopen_for_writing", hook: open, do: func(s *scene) error {
			f, err := os.Open(s.Config())
			if err != nil {
				return err
			}
			defer f.Close()
			return writeAt(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), 0, "x")
		}},
		{name: "move_extents", hook: open, control: "the content moves along", do: func(s *scene) error {
			mine, err := os.OpenFile(s.Elsewhere+"/file", os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer mine.Close()
			theirs, err := os.OpenFile(s.Config(), os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer theirs.Close()
			if err := errors.Join(mine.Sync(), theirs.Sync()); err != nil {
				return err
			}
			move := struct{ reserved, donor, _, _, _, _, length, _, _, _ uint32 }{donor: uint32(mine.Fd()), length: 1} // struct move_extent of fs/ext4/ext4.h
			return call(unix.SYS_IOCTL, theirs.Fd(), 0xc028660f /* EXT4_IOC_MOVE_EXT */, uintptr(unsafe.Pointer(&move)))
		}},
		{name: "truncate", hook: attr, do: func(s *scene) error { return os.Truncate(s.Config(), 0) }},
		{name: "open_read_truncate", hook: attr, do: func(s *scene) error { return openAnd(s.Config(), os.O_RDONLY|os.O_TRUNC, "") }},
		{name: "mmap_shared", hook: open, do: func(s *scene) error {
			f, err := os.OpenFile(s.Config(), os.O_RDWR, 0)
			if err != nil {
				return err
			}
			page, err := unix.Mmap(int(f.Fd()), 0, 6, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				return err
			}
			page[0] = 'x'
			return unix.Msync(page, unix.MS_SYNC)
		}},
		{name: "unlink", hook: unlink, do: func(s *scene) error { return os.Remove(s.Config()) }},
		{name: "unlink_deep", hook: unlink, do: func(s *scene) error { return os.Remove(s.Deep) }},
		{name: "unlink_program", hook: unlink, do: func(s *scene) error { return os.Remove(s.Program) }},
		{name: "remove_all", hook: unlink, do: func(s *scene) error { return os.RemoveAll(s.Dir) }},
		{name: "unlink_io_uring", hook: unlink, do: func(s *scene) error { return unlinkByRing(s.Config()) }},
		{name: "rename", hook: rename, do: func(s *scene) error { return os.Rename(s.Config(), s.Config()+".old") }},
		{name: "rename_out", hook: rename, do: func(s *scene) error { return os.Rename(s.Config(), s.Elsewhere+"/config") }},
		{name: "rename_directory", hook: rename, do: func(s *scene) error { return os.Rename(s.Dir, s.Dir+".old") }},
		{name: "rename_above", hook: rename, do: func(s *scene) error { return os.Rename(s.Above, s.Above+".old") }},
		{name: "rename_over", hook: rename, do: func(s *scene) error { return os.Rename(s.Elsewhere+"/file", s.Config()) }},
		{name: "rename_over_program", hook: rename, do: func(s *scene) error { return os.Rename(s.Elsewhere+"/file", s.Program) }},
		{name: "rename_exchange", hook: rename, do: func(s *scene) error {
			return unix.Renameat2(unix.AT_FDCWD, s.Elsewhere, unix.AT_FDCWD, s.Dir, unix.RENAME_EXCHANGE)
		}},
		{name: "rename_whiteout", hook: rename, do: func(s *scene) error {
			return unix.Renameat2(unix.AT_FDCWD, s.Config(), unix.AT_FDCWD, s.Elsewhere+"/config", unix.RENAME_WHITEOUT)
		}},
		{name: "write_by_handle", hook: open, do: func(s *scene) error {
			fd, err := s.openByHandle(unix.O_RDWR)
			if err != nil {
				return err
			}
			_, err = unix.Pwrite(fd, []byte("x"), 0)
			return err
		}},
		{name: "chmod_by_handle", hook: attr, do: func(s *scene) error {
			fd, err := s.openByHandle(unix.O_RDONLY)
			if err != nil {
				return err
			}
			return unix.Fchmod(fd, 0o666)
		}},
		{name: "link_by_handle", hook: "inode_link", do: func(s *scene) error {
			fd, err := s.openByHandle(unix.O_RDONLY)
			if err != nil {
				return err
			}
			return unix.Linkat(fd, "", unix.AT_FDCWD, s.Elsewhere+"/deep", unix.AT_EMPTY_PATH)
		}},
		{name: "setxattr_by_handle", hook: "inode_setxattr", do: func(s *scene) error {
			fd, err := s.openByHandle(unix.O_RDONLY)
			if err != nil {
				return err
			}
			return unix.Fsetxattr(fd, "user.x", []byte("x"), 0)
		}},
		{name: "chattr_by_handle", hook: "file_ioctl", do: func(s *scene) error {
			fd, err := s.openByHandle(unix.O_RDONLY)
			if err != nil {
				return err
			}
			return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, 0x80010 /* FS_IMMUTABLE_FL, and extents as before */)
		}},
		{name: "create", hook: "inode_create", do: func(s *scene) error { return os.WriteFile(s.Dir+"/new", []byte("x"), 0o600) }},
		{name: "mkdir", hook: "inode_mkdir", do: func(s *scene) error { return os.Mkdir(s.Dir+"/new", 0o755) }},
		{name: "rmdir", hook: "inode_rmdir", do: func(s *scene) error { return unix.Rmdir(s.Dir + "/empty") }},
		{name: "symlink", hook: "inode_symlink", do: func(s *scene) error { return os.Symlink("/etc/passwd", s.Dir+"/new") }},
		{name: "mknod", hook: "inode_mknod", do: func(s *scene) error { return unix.Mknod(s.Dir+"/new", unix.S_IFIFO|0o600, 0) }},
		{name: "link_out", hook: "inode_link", do: func(s *scene) error { return os.Link(s.Config(), s.Elsewhere+"/config") }},
		{name: "link_in", hook: "inode_link", do: func(s *scene) error { return os.Link(s.Elsewhere+"/file", s.Dir+"/new") }},
		{name: "tmpfile_linkat", hook: "inode_link", do: func(s *scene) error {
			fd, err := unix.Open(s.Elsewhere, unix.O_TMPFILE|unix.O_RDWR, 0o600)
			if err != nil {
				return err
			}
			return unix.Linkat(fd, "", unix.AT_FDCWD, s.Dir+"/new", unix.AT_EMPTY_PATH)
		}},
		{name: "tmpfile_in", hook: open, do: func(s *scene) error {
			fd, err := unix.Open(s.Dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
			if err != nil {
				return err
			}
			return effectUnless(unix.Close(fd))
		}},
		{name: "chmod", hook: attr, do: func(s *scene) error { return os.Chmod(s.Config(), 0o666) }},
		{name: "chmod_directory", hook: attr, do: func(s *scene) error { return os.Chmod(s.Dir, 0o777) }},
		{name: "chmod_program", hook: attr, do: func(s *scene) error { return os.Chmod(s.Program, 0) }},
		{name: "chown", hook: attr, do: func(s *scene) error { return os.Chown(s.Config(), 65534, 65534) }},
		{name: "utimes", hook: attr, do: func(s *scene) error { return os.Chtimes(s.Config(), time.Unix(1, 0), time.Unix(1, 0)) }},
		{name: "chattr_immutable", hook: "file_ioctl", do: func(s *scene) error {
			f, err := os.Open(s.Config())
			if err != nil {
				return err
			}
			flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
			if err != nil {
				return err
			}
			return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags|0x10) /* FS_IMMUTABLE_FL */)
		}},
		{name: "setxattr", hook: "inode_setxattr", do: func(s *scene) error { return unix.Setxattr(s.Config(), "user.x", []byte("x"), 0) }},
		{name: "set_capability", hook: "inode_setxattr", do: func(s *scene) error {
			return effectUnless(unix.Setxattr(s.Program, "security.capability", []byte{3: 2 /* version */, 19: 0}, 0))
		}},
		{name: "enable_verity", hook: "file_ioctl", control: "the scene's filesystem has no verity", do: func(s *scene) error {
			f, err := os.Open(s.Config())
			if err != nil {
				return err
			}
			defer f.Close()
			arg := [128]byte{0: 1, 4: 1, 9: 4} // version, SHA-256, blocks of 1024
			return effectUnless(call(unix.SYS_IOCTL, f.Fd(), unix.FS_IOC_ENABLE_VERITY, uintptr(unsafe.Pointer(&arg[0]))))
		}},
		{name: "set_acl", hook: setACL, do: func(s *scene) error {
			acl := []byte{2, 0, 0, 0, // version; then tag, permissions, id
				1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 7, 0, 0xfe, 0xff, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255}
			return unix.Setxattr(s.Config(), "system.posix_acl_access", acl, 0)
		}},
		{name: "by_a_bind_mount", hook: open, do: func(s *scene) error {
			return inNamespace(func() error {
				dir := filepath.Join(s.Elsewhere, "mounted")
				if err := os.MkdirAll(dir, 0o755); err != nil {
					return err
				}
				if err := unix.Mount(s.Dir, dir, "", unix.MS_BIND, ""); err != nil {
					return err
				}
				return writeAt(dir+"/config", 0, "x")
			})
		}},
		{name: "by_an_overlay", hook: "inode_create", do: func(s *scene) error {
			return inNamespace(func() error {
				work, dir := s.Elsewhere+"/work", s.Elsewhere+"/merged"
				for _, d := range []string{work, dir} {
					if err := os.MkdirAll(d, 0o755); err != nil {
						return err
					}
				}
				if err := unix.Mount("overlay", dir, "overlay", 0, "lowerdir="+s.Root+",upperdir="+s.Dir+",workdir="+work); err != nil {
					return err
				}
				return os.WriteFile(dir+"/new", []byte("x"), 0o600)
			})
		}},
		{name: "disk_write", hook: "disk_write", do: func(s *scene) error { return writeAt(s.Disk, diskSpot, "x") }},
		{name: "disk_write_own_node", hook: "disk_write", do: func(s *scene) error {
			var st unix.Stat_t
			if err := unix.Stat(s.Disk, &st); err != nil {
				return err
			}
			if err := unix.Mknod("/dev/own", unix.S_IFBLK|0o600, int(st.Rdev)); err != nil {
				return err
			}
			defer os.Remove("/dev/own") //nolint:errcheck // of the attacker
			return writeAt("/dev/own", diskSpot, "x")
		}},
		{name: "disk_write_direct", hook: "disk_write", do: func(s *scene) error {
			fd, err := unix.Open(s.Disk, unix.O_WRONLY|unix.O_DIRECT, 0)
			if err != nil {
				return err
			}
			page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
			if err != nil {
				return err
			}
			_, err = unix.Pwrite(fd, page, diskSpot&^4095)
			return effectUnless(err)
		}},
		{name: "disk_write_through_a_loop", hook: "disk_write", do: func(s *scene) error {
			disk, err := os.OpenFile(s.Disk, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer disk.Close()
			own, err := attachLoop(disk)
			if err != nil {
				return err
			}
			defer own.Close()
			_, err = own.WriteAt([]byte("x"), diskSpot)
			return errors.Join(err, own.Sync())
		}},
		{name: "disk_read_only", hook: "file_ioctl", do: func(s *scene) error {
			fd, err := unix.Open(s.Disk, unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			if err := unix.IoctlSetPointerInt(fd, 0x125d /* BLKROSET */, 1); err != nil {
				return err
			}
			return effectUnless(unix.IoctlSetPointerInt(fd, 0x125d, 0))
		}},
		{name: "loop_offset", hook: "file_ioctl", do: func(s *scene) error {
			fd, err := unix.Open(s.Disk, unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			info, err := unix.IoctlLoopGetStatus64(fd)
			if err != nil {
				return err
			}
			return effectUnless(unix.IoctlLoopSetStatus64(fd, info))
		}},
		{name: "loop_capacity", hook: "file_ioctl", do: func(s *scene) error {
			fd, err := unix.Open(s.Disk, unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			return effectUnless(call(unix.SYS_IOCTL, uintptr(fd), unix.LOOP_SET_CAPACITY, 0))
		}},
		{name: "set_label", hook: "file_ioctl", do: func(s *scene) error {
			fd, err := unix.Open(s.Mount, unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			label := [256]byte{'x'}
			return effectUnless(call(unix.SYS_IOCTL, uintptr(fd), 0x41009432 /* FS_IOC_SETFSLABEL */, uintptr(unsafe.Pointer(&label[0]))))
		}},
		{name: "set_uuid", hook: "file_ioctl", control: "the scene's filesystem has checksums that its UUID is in", do: func(s *scene) error {
			fd, err := unix.Open(s.Mount, unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			uuid := [24]byte{0: 16, 8: 'x'} // struct fsuuid
			return effectUnless(call(unix.SYS_IOCTL, uintptr(fd), 0x4008662c /* EXT4_IOC_SETFSUUID */, uintptr(unsafe.Pointer(&uuid[0]))))
		}},
		{name: "freeze_filesystem", hook: "file_ioctl", do: func(s *scene) error {
			fd, err := unix.Open(s.Mount, unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			if err := unix.IoctlSetInt(fd, 0xc0045877 /* FIFREEZE */, 0); err != nil {
				return err
			}
			return effectUnless(unix.IoctlSetInt(fd, 0xc0045878 /* FITHAW */, 0))
		}},
		{name: "shut_filesystem_down", hook: "file_ioctl", do: func(s *scene) error {
			fd, err := unix.Open(s.Elsewhere, unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			return unix.IoctlSetPointerInt(fd, 0x8004587d /* EXT4_IOC_SHUTDOWN */, 2)
		}},
		{name: "fanotify_permission", hook: "path_notify", do: func(s *scene) error {
			fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT, unix.O_RDONLY)
			if err != nil {
				return err
			}
			return effectUnless(unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_OPEN_PERM|unix.FAN_EVENT_ON_CHILD, unix.AT_FDCWD, s.Dir))
		}},
		{name: "fanotify_permission_on_filesystem", possible: "other security products have such marks; what does not answer holds up everybody who opens a file there, the agent too",
			do: func(s *scene) error {
				fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT, unix.O_RDONLY)
				if err != nil {
					return err
				}
				return effectUnless(unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN_PERM, unix.AT_FDCWD, s.Mount))
			}},
	}
}

// openByHandle opens the deep file by its numbers alone, when the kernel has forgotten where it lies.
func (s *scene) openByHandle(flags int) (int, error) {
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, s.Deep, 0)
	if err != nil {
		return 0, err
	}
	mount, err := unix.Open(s.Mount, unix.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	if err := put("/proc/sys/vm/drop_caches", "3"); err != nil {
		return 0, err
	}
	return unix.OpenByHandleAt(mount, handle, flags)
}

func openAnd(path string, flags int, text string) error {
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if text == "" {
		return nil
	}
	_, err = f.WriteString(text)
	return err
}
