package file

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"bailey/agent/health"
)

// Components of the health registry that this sensor sets.
const (
	componentQuestions = "sensor.file.questions"
	componentCache     = "sensor.file.cache"
	componentEvents    = "sensor.file.events"
	componentMounts    = "sensor.file.mounts"
	componentFiles     = "sensor.file.descriptors"
)

// openQuestions makes the group that holds openers. Its events' descriptors do not touch the access time, and do not wait
// when the file turns out to be a FIFO. There is no FAN_REPORT_PIDFD: the asker cannot end its pid's life while it is being
// held (killed, it takes the question with it), and a pidfd costs a descriptor and about a microsecond per question.
func openQuestions() (int, error) {
	const flags = unix.FAN_CLASS_CONTENT | unix.FAN_UNLIMITED_QUEUE | unix.FAN_UNLIMITED_MARKS | unix.FAN_CLOEXEC | unix.FAN_NONBLOCK
	const eventFlags = unix.O_RDONLY | unix.O_LARGEFILE | unix.O_CLOEXEC | unix.O_NOATIME | unix.O_NONBLOCK
	fd, err := unix.FanotifyInit(flags, eventFlags)
	if err == nil {
		return fd, nil
	}
	switch {
	case errors.Is(err, unix.EPERM):
		return -1, fmt.Errorf("create the fanotify group for questions: %w: run the agent as root with CAP_SYS_ADMIN in the initial user namespace", err)
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return -1, fmt.Errorf("create the fanotify group for questions: %w: the kernel needs CONFIG_FANOTIFY_ACCESS_PERMISSIONS", err)
	case errors.Is(err, unix.EMFILE):
		return -1, fmt.Errorf("create the fanotify group for questions: %w: raise fs.fanotify.max_user_groups or the limit of open files", err)
	}
	return -1, fmt.Errorf("create the fanotify group for questions: %w", err)
}

// eventsSupport says how much the notify group can report.
type eventsSupport struct {
	fd     int
	pidfd  bool // the acting process is named by a pidfd
	target bool // directory events carry the object's handle too
}

// openEvents makes the group that reports changes by handle and name, with as much as this kernel has.
func openEvents() (eventsSupport, error) {
	const base = unix.FAN_CLASS_NOTIF | unix.FAN_CLOEXEC | unix.FAN_NONBLOCK | unix.FAN_UNLIMITED_MARKS | unix.FAN_REPORT_DFID_NAME | unix.FAN_REPORT_FID
	var first error
	for _, try := range []eventsSupport{{pidfd: true, target: true}, {target: true}, {pidfd: true}, {}} {
		flags := uint(base)
		if try.pidfd {
			flags |= unix.FAN_REPORT_PIDFD
		}
		if try.target {
			flags |= unix.FAN_REPORT_TARGET_FID
		}
		fd, err := unix.FanotifyInit(flags, unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC)
		if err == nil {
			try.fd = fd
			return try, nil
		}
		if first == nil {
			first = err
		}
	}
	return eventsSupport{fd: -1}, fmt.Errorf("create the fanotify group for file events: %w: the kernel needs FAN_REPORT_DFID_NAME (5.9)", first)
}

// probeCache finds the flags for evictable ignore marks by setting one on a private object, and reports whether the kernel
// has them. Without EVICTABLE every cached verdict would pin an inode in memory for ever, so then nothing is cached.
func probeCache(group int) (add, drop uint, ok bool) {
	fd, err := unix.MemfdCreate("probe", unix.MFD_CLOEXEC)
	if err != nil {
		return 0, 0, false
	}
	defer func() { _ = unix.Close(fd) }()
	for _, ignore := range []uint{unix.FAN_MARK_IGNORE, unix.FAN_MARK_IGNORED_MASK} {
		// FAN_OPEN, not a permission bit: the probe must not be one that could hold anybody.
		add = unix.FAN_MARK_ADD | unix.FAN_MARK_EVICTABLE | ignore
		drop = unix.FAN_MARK_REMOVE | ignore
		// The memfd is open for writing, so a mark without SURV_MODIFY would be skipped silently: that is fine, the flags
		// are checked before.
		if sysMarkFD(group, add, unix.FAN_OPEN, fd) == 0 {
			_ = sysMarkFD(group, drop, unix.FAN_OPEN, fd)
			return add, drop, true
		}
	}
	return 0, 0, false
}

// openLedger makes the group that remembers, in the kernel, which superblocks were marked. See mounts.
func openLedger() (int, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_UNLIMITED_MARKS|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("create the fanotify group for the ledger of marked file systems: %w", err)
	}
	return fd, nil
}

func (s *Sensor) report(component string, status health.Status, summary, remedy string) {
	if s.cfg.Health != nil {
		s.cfg.Health.Set(health.Entry{Component: component, Status: status, Summary: summary, Remedy: remedy})
	}
}
