package file

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
)

// bits returns the masks that a superblock mounted at the given mounts should have in the two groups.
func (m *mounts) bits(at []mount) (question, notify uint64) {
	w := &m.want
	if w.exec {
		question |= unix.FAN_OPEN_EXEC_PERM
	}
	if w.open && m.openHere(at) {
		question |= unix.FAN_OPEN_PERM
	}
	if m.s.events.fd < 0 {
		return question, 0
	}
	if question != 0 && m.s.cache.enabled {
		notify |= unix.FAN_CLOSE_WRITE
	}
	move := uint64(unix.FAN_MOVED_FROM | unix.FAN_MOVED_TO)
	if m.rename {
		move = unix.FAN_RENAME
	}
	if question&unix.FAN_OPEN_PERM != 0 && m.s.cache.enabled && !w.scope.whole() {
		notify |= move | unix.FAN_CREATE | unix.FAN_ONDIR // files that come into the scope
	}
	for kind, bit := range map[event.Kind]uint64{
		event.Create: unix.FAN_CREATE | unix.FAN_ONDIR, event.CloseWrite: unix.FAN_CLOSE_WRITE, event.Rename: move | unix.FAN_ONDIR,
		event.Unlink: unix.FAN_DELETE | unix.FAN_ONDIR, event.Attrib: unix.FAN_ATTRIB | unix.FAN_ONDIR,
	} {
		if w.events.Has(kind) {
			notify |= bit
		}
	}
	return question, notify
}

// openHere reports whether opens are asked about on a superblock with these mounts. Never where device nodes live: to ask
// about one the kernel opens it for us, which can rewind, start or occupy the device, and refuses the opener if that fails.
func (m *mounts) openHere(at []mount) bool {
	touched := false
	for _, mt := range at {
		if mt.point == "/dev" || mt.fsType == "devtmpfs" {
			return false
		}
		touched = touched || m.want.scope.touches(mt.point)
	}
	return touched
}

// cover brings the marks of one superblock, visible at the given mounts, up to date.
func (m *mounts) cover(dev uint64, at []mount) error {
	b := m.blocks[dev]
	if b != nil && b.refused != nil {
		for _, mt := range at {
			if mt == b.refusedAs {
				return b.refused
			}
		}
		b = nil
	}
	question, notify := m.bits(at)
	if b == nil && question|notify == 0 {
		return nil
	}
	if b != nil && b.noEvents {
		notify = 0
	}
	if b != nil && b.question == question && b.notify == notify && !b.adopted {
		return nil
	}
	if b == nil {
		b = &superblock{}
	}
	var last error
	for _, mt := range at {
		fd, err := openMount(mt)
		if err != nil {
			last = err
			continue
		}
		err = m.mark(b, m.s.groupOf(mt.fsType), fd, question, notify)
		_ = unix.Close(fd)
		if err != nil {
			b.refused, b.refusedAs = fmt.Errorf("mark %s (%s): %w", mt.point, mt.fsType, err), mt
			m.blocks[dev] = b
			return b.refused
		}
		m.blocks[dev] = b
		return nil
	}
	if errors.Is(last, unix.ENOENT) || errors.Is(last, errCovered) {
		return nil // no path leads there: it is covered, was unmounted meanwhile, or its process ended
	}
	return last
}

// mark changes one superblock's marks to the given masks. The notify mark comes first, so that nothing is cached that
// nobody would invalidate; the ledger last, so that a failure in between is tried again.
func (m *mounts) mark(b *superblock, group, fd int, question, notify uint64) error {
	var link [32]byte
	path := fdLink(&link, fd)
	if notify != 0 || b.notify != 0 {
		b.notify = m.markEvents(b, path, notify)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err == nil {
		b.fsid = st.Fsid
	}
	if errno := setMask(group, path, b.question, question); errno != 0 {
		return errno
	}
	b.question, b.adopted = question, false
	if errno := m.s.inLedger(path); errno != 0 {
		return fmt.Errorf("note it in the ledger: %w", errno)
	}
	return nil
}

// markEvents returns the mask that the kernel accepted: none where the file system's handles cannot be resolved (overlayfs
// without nfs_export, among others). Its files' questions are then asked every time.
func (m *mounts) markEvents(b *superblock, path []byte, notify uint64) uint64 {
	errno := setMask(m.s.events.fd, path, b.notify, notify)
	if errno == unix.EINVAL && notify&unix.FAN_RENAME != 0 {
		m.rename = false
		notify = notify&^unix.FAN_RENAME | unix.FAN_MOVED_FROM | unix.FAN_MOVED_TO
		errno = setMask(m.s.events.fd, path, b.notify, notify)
	}
	if errno != 0 {
		b.noEvents = true
		return 0
	}
	return notify
}

// setMask changes a file system mark from one mask to another, adding first.
func setMask(group int, path []byte, from, to uint64) unix.Errno {
	if add := to &^ from; add != 0 {
		if errno := sysMarkPath(group, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, to, path); errno != 0 {
			return errno
		}
	}
	if drop := from &^ to; drop&^unix.FAN_ONDIR != 0 {
		if errno := sysMarkPath(group, unix.FAN_MARK_REMOVE|unix.FAN_MARK_FILESYSTEM, drop, path); errno != 0 && errno != unix.ENOENT {
			return errno
		}
	}
	return 0
}
