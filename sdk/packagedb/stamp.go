package packagedb

import (
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// stamp identifies one state of the databases on disk: every change of dpkg or rpm changes one of these.
type stamp [8]fileStamp

// fileStamp is the identity of one file or directory; zero where there is none.
type fileStamp struct {
	dev, ino     uint64
	mtime, ctime int64
	size         int64
}

// stamped are the files that every transaction changes, in the order of stamp.
var stamped = [len(stamp{})]string{
	dpkgDir + "/status", dpkgDir + "/info", dpkgDir + "/diversions", dpkgDir + "/updates",
	"/var/lib/rpm", "/usr/lib/sysimage/rpm", "", "",
}

func (d *DB) stamp() stamp {
	var s stamp
	for i, name := range stamped {
		if name != "" {
			s[i] = stampOf(filepath.Join(d.cfg.Root, name))
		}
	}
	if path, err := findRPM(d.cfg.Root); err == nil {
		s[6], s[7] = stampOf(path), stampOf(path+"-wal")
	}
	return s
}

func stampOf(path string) fileStamp {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return fileStamp{}
	}
	return fileStamp{dev: st.Dev, ino: st.Ino, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(), size: st.Size}
}

// InTransaction reports whether a package manager is changing files now, or has changed its database in a way that the
// snapshot does not show yet. In that time a file of a package may be newer than its recorded digest, and a caller should
// not hold the difference against it. It needs no privilege: locks are asked about where they may be, else the journal and
// the times of the database tell. The answer may be late by Settle, never early.
func (d *DB) InTransaction() bool {
	now := d.stamp()
	if s := d.Snapshot(); s == nil || d.changed.Load() || now != s.stamp {
		return true
	}
	newest := int64(0)
	for _, f := range now {
		newest = max(newest, f.ctime)
	}
	if age := time.Now().UnixNano() - newest; age >= 0 && age < int64(d.cfg.Settle) {
		return true
	}
	if d.isLocked() {
		return true
	}
	// dpkg keeps a journal entry for each change of state until it has written the whole status file again.
	journal, err := os.ReadDir(filepath.Join(d.cfg.Root, dpkgDir, "updates"))
	return err == nil && len(journal) > 0
}

// isLocked reports whether a package manager holds its lock.
func (d *DB) isLocked() bool {
	for _, lock := range [...]string{dpkgDir + "/lock-frontend", dpkgDir + "/lock", "/var/lib/rpm/.rpm.lock", "/usr/lib/sysimage/rpm/.rpm.lock"} {
		if locked(filepath.Join(d.cfg.Root, lock)) {
			return true
		}
	}
	return false
}

// locked reports whether another process holds a POSIX lock on the file. A file that may not be opened is not known to be.
func locked(path string) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_GETLK, &lock); err != nil {
		return false
	}
	return lock.Type != unix.F_UNLCK
}
