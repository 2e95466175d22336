package probe

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"bailey/agent/health"
)

const (
	contentGroup = unix.FAN_CLASS_CONTENT | unix.FAN_CLOEXEC | unix.FAN_NONBLOCK
	preAccess    = 0x00100000 // FAN_PRE_ACCESS in linux/fanotify.h
	noticeGroup  = unix.FAN_CLASS_NOTIF | unix.FAN_CLOEXEC | unix.FAN_NONBLOCK
)

func fanotifyFeatures() []Feature {
	const newer = "use a newer kernel; Bailey works without"
	return []Feature{
		feature("fanotify.permission", "programs wait for a verdict before they run (exec and open questions)", "5.0",
			"use a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS and run the agent with CAP_SYS_ADMIN", health.Failed, func() error {
				if err := group(contentGroup | unix.FAN_UNLIMITED_QUEUE | unix.FAN_UNLIMITED_MARKS); err != nil {
					return err
				}
				return mark(0, unix.FAN_OPEN_PERM|unix.FAN_OPEN_EXEC_PERM)
			}),
		feature("fanotify.filesystem_mark", "one mark covers all mounts of a filesystem, containers' too", "4.20",
			"use a newer kernel", health.Failed, func() error { return mark(unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN) }),
		feature("fanotify.pidfd", "whose file event it is cannot be mistaken for a later process with that pid", "5.15", newer, health.OK,
			func() error { return group(noticeGroup | unix.FAN_REPORT_PIDFD) }),
		feature("fanotify.evictable_mark", "verdicts kept in the kernel take no memory that it needs elsewhere", "5.19",
			"use a newer kernel; until then verdicts are not kept in the kernel, which asks every time", health.Degraded,
			func() error {
				return mark(unix.FAN_MARK_EVICTABLE|unix.FAN_MARK_IGNORED_MASK, unix.FAN_OPEN_EXEC_PERM)
			}),
		feature("fanotify.ignore_mark", "verdicts kept in the kernel by the newer kind of mark", "6.0", newer, health.OK,
			func() error { return mark(unix.FAN_MARK_IGNORE|unix.FAN_MARK_EVICTABLE, unix.FAN_OPEN_EXEC_PERM) }),
		feature("fanotify.fid", "files are told apart by handle: create, rename, unlink and attribute events", "5.1",
			"use a newer kernel; until then there are no events of changes to files", health.Degraded,
			func() error { return group(noticeGroup | unix.FAN_REPORT_FID) }),
		feature("fanotify.dfid_name", "events of changes to files carry the name", "5.9",
			"use a newer kernel; until then there are no events of changes to files", health.Degraded,
			func() error { return group(noticeGroup | unix.FAN_REPORT_DFID_NAME) }),
		feature("fanotify.target_fid", "a rename is one event with both names", "5.17", newer, health.OK, func() error {
			if err := group(noticeGroup | unix.FAN_REPORT_DFID_NAME_TARGET); err != nil {
				return err
			}
			return mark(0, unix.FAN_RENAME)
		}),
		feature("fanotify.pre_content", "reading a file could wait for a verdict; nothing here uses it yet", "6.14", newer, health.OK,
			func() error { return mark(0, preAccess) }),
	}
}

// group opens and closes a fanotify group.
func group(flags uint) error {
	fd, err := unix.FanotifyInit(flags, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_LARGEFILE)
	if err != nil {
		return fmt.Errorf("open a fanotify group: %w", err)
	}
	return unix.Close(fd)
}

// mark asks whether the kernel knows a mark's flags and mask, without a group: it looks at them first, and only then finds
// that there is none.
func mark(flags uint, mask uint64) error {
	err := unix.FanotifyMark(-1, unix.FAN_MARK_ADD|flags, mask, unix.AT_FDCWD, "/")
	if errors.Is(err, unix.EBADF) {
		return nil
	}
	if err == nil {
		err = errors.New("a mark was accepted without a group")
	}
	return fmt.Errorf("check a fanotify mark: %w", err)
}
