package file

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
)

// racyWindow is how long before the question a file must have been left alone for its verdict to be cached. Timestamps are
// as coarse as the kernel's tick (10 ms at most): two writes within one tick leave the same ctime, so that a file which
// changed in the question's own tick could change again unseen. (The index of git has the same rule.)
const racyWindow = 50 * time.Millisecond

const questionBits = unix.FAN_OPEN_EXEC_PERM | unix.FAN_OPEN_PERM

// cache is the kernel's cache of verdicts: evictable ignore marks on inodes, under the group's file system marks. The marks
// live in the kernel alone, so there is nothing here to bound. Safe for concurrent use; no method takes a lock.
//
// An ignore mark may only stay if the file is still what was asked about. Four things see to it: the kernel drops the mark
// when the file is written and refuses it while the file is open for writing; the file is looked at again after marking;
// closing a writer bumps the file's stripe, which is compared after marking, and then removes the mark (for stores through a
// shared mapping, which change neither mark nor, always, ctime); a flush bumps the generation, compared after marking.
type cache struct {
	s          *Sensor
	addFlags   uint
	dropFlags  uint
	enabled    bool // the kernel has evictable marks
	generation atomic.Uint64
	stripes    [4096]atomic.Uint32
}

func kindBit(k event.Kind) uint64 {
	if k == event.Exec {
		return unix.FAN_OPEN_EXEC_PERM
	}
	return unix.FAN_OPEN_PERM
}

func (c *cache) stripe(dev, ino uint64) *atomic.Uint32 {
	h := (ino ^ dev<<32) * 0x9e3779b97f4a7c15
	return &c.stripes[h>>52]
}

// verdict stops the kernel from asking p's kind of question about p's file, if that is safe.
func (c *cache) verdict(p *pending) {
	count := &c.s.count
	if !c.watched(p) || p.q.File.CTime > p.wall-int64(racyWindow) {
		count.cacheSkipped.Add(1)
		return
	}
	if !c.add(p) {
		return
	}
	count.cacheSet.Add(1)
	if !c.unchanged(p) {
		c.takeBack(p)
	}
}

// unscoped stops the kernel from asking about opens of a file outside the open scope. r reads the name again after marking:
// the file may have moved into the scope meanwhile.
func (c *cache) unscoped(p *pending, r *reader) {
	if !c.watched(p) {
		return
	}
	before := p.q.File.Path
	if !c.add(p) {
		return
	}
	c.s.count.ignored.Add(1)
	n, errno := sysReadlink(fdLink(&p.link, p.q.FD), r.path[:])
	if errno != 0 || string(r.path[:n]) != before || !c.unchanged(p) || p.again.Nlink != 1 {
		c.takeBack(p)
	}
}

// watched reports whether writes to p's file will be told to us; without that no verdict may stay.
func (c *cache) watched(p *pending) bool {
	return c.enabled && p.group == c.s.questions && c.s.mounts.cacheable(p.stat.Mnt_id)
}

func (c *cache) add(p *pending) bool {
	if errno := sysMarkFD(p.group, c.addFlags, kindBit(p.q.Kind), p.q.FD); errno != 0 {
		c.s.count.cacheErrors.Add(1)
		return false
	}
	return true
}

func (c *cache) unchanged(p *pending) bool {
	if sysStat(p.q.FD, nul[:], &p.again) != 0 {
		return false
	}
	a, b := &p.stat, &p.again
	return a.Ctime == b.Ctime && a.Mtime == b.Mtime && a.Size == b.Size && a.Ino == b.Ino &&
		c.stripe(p.q.File.Dev, p.q.File.Ino).Load() == p.closes && c.generation.Load() == p.generation
}

func (c *cache) takeBack(p *pending) {
	c.s.count.cacheTakenBack.Add(1)
	if errno := sysMarkFD(p.group, c.dropFlags, kindBit(p.q.Kind), p.q.FD); errno != 0 && errno != unix.ENOENT {
		c.s.count.cacheErrors.Add(1)
	}
}

// drop removes whatever mark the file behind the O_PATH descriptor fd has. The stripe comes first: a verdict that is being
// cached either sees it, or has its mark in place already to be removed here.
func (c *cache) drop(fd int, dev, ino uint64) {
	c.stripe(dev, ino).Add(1)
	if forget := c.s.cfg.Forget; forget != nil {
		forget(dev, ino)
	}
	var link [32]byte
	switch sysMarkPath(c.s.questions, c.dropFlags, questionBits, fdLink(&link, fd)) {
	case 0:
		c.s.count.cacheDropped.Add(1)
	case unix.ENOENT: // it had none
	default:
		c.s.count.cacheErrors.Add(1)
	}
}

// lost drops everything, because a writer may have closed any file unheard.
func (c *cache) lost() {
	_ = c.flush()
	if forget := c.s.cfg.ForgetAll; forget != nil {
		forget()
	}
}

// flush removes all marks. The generation comes first, for the same reason.
func (c *cache) flush() error {
	c.generation.Add(1)
	c.s.count.flushes.Add(1)
	if errno := sysMarkFD(c.s.questions, unix.FAN_MARK_FLUSH, 0, -1); errno != 0 {
		return errno
	}
	return nil
}
