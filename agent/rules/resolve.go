package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bailey/agent/event"
	"bailey/internal/cgroup2"
)

// target is what a rule's match is on this machine now.
type target struct {
	file       learnedFile // of File or Below; ino 0: none
	executable learnedFile
	cgroup     uint64
	level      uint32
	named      event.File // File or Below as stat sees it
}

// ErrNotFound says that what a rule names is not there, or is no longer what the product saw.
var ErrNotFound = errors.New("not found")

// remote are filesystems that somebody else answers for, who can hold up whoever opens a file: FUSE, NFS, CIFS, SMB2, Ceph, AFS, 9p.
var remote = []int64{0x65735546, 0x6969, 0xff534d42, 0xfe534d42, 0x00c36400, 0x5346414f, 0x01021997}

// opened is a file or directory that is looked at and not read.
type opened struct {
	fd   int
	stat unix.Stat_t
	path string // without symbolic links
}

// look opens path without opening what is there: a device or a pipe may do something when it is opened.
func look(path string) (*opened, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNotFound, path, err)
	}
	o := &opened{fd: fd}
	if err := o.check(path); err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

func (o *opened) check(path string) (err error) {
	if err := unix.Fstat(o.fd, &o.stat); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if kind := o.stat.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return invalid("%s is neither a file nor a directory", path)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(o.fd, &fs); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if slices.Contains(remote, fs.Type) {
		return invalid("%s is on a network or user-mode filesystem: rules need a local one", path)
	}
	if o.path, err = os.Readlink(o.again()); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	return nil
}

func (o *opened) again() string { return fmt.Sprintf("/proc/self/fd/%d", o.fd) }

func (o *opened) close() { _ = unix.Close(o.fd) }

func (o *opened) directory() bool { return o.stat.Mode&unix.S_IFMT == unix.S_IFDIR }

// event returns the file as the critical set knows files.
func (o *opened) event() event.File {
	return event.File{
		Path: o.path, Dev: o.stat.Dev, Ino: o.stat.Ino, CTime: o.stat.Ctim.Nano(), MTime: o.stat.Mtim.Nano(), Size: o.stat.Size,
		Mode: o.stat.Mode, UID: o.stat.Uid, GID: o.stat.Gid, Deleted: o.stat.Nlink == 0,
	}
}

// seen are what a rule names, opened for looking at. A path can lead over a filesystem that never answers, so nobody else must wait
// for whoever looks.
type seen struct{ file, executable *opened }

func lookFor(m *Match) (s seen, err error) {
	if path := m.File + m.Below; path != "" {
		if s.file, err = look(path); err != nil {
			return s, err
		}
	}
	if m.Executable != "" {
		if s.executable, err = look(m.Executable); err != nil {
			s.close()
		}
	}
	return s, err
}

func (s *seen) close() {
	for _, o := range []*opened{s.file, s.executable} {
		if o != nil {
			o.close()
		}
	}
	*s = seen{}
}

// resolve finds what a rule names.
func (k *kernel) resolve(m *Match, s seen) (t target, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if o := s.file; o != nil {
		path := m.File + m.Below
		switch {
		case m.Below != "" && !o.directory():
			return t, invalid("%s is no directory", path)
		case m.Dev != 0 && m.Dev != o.stat.Dev, m.Ino != 0 && m.Ino != o.stat.Ino:
			return t, fmt.Errorf("%w: %s is another file by now (device %d, inode %d)", ErrNotFound, path, o.stat.Dev, o.stat.Ino)
		case m.Below != "" && o.path == "/":
			return t, invalid("a rule for everything on the machine")
		}
		if t.file, err = k.learnOpened(o); err != nil {
			return t, err
		}
		t.named = o.event()
	}
	if o := s.executable; o != nil {
		if o.directory() {
			return t, invalid("%s is no program", m.Executable)
		}
		if t.executable, err = k.learnOpened(o); err != nil {
			return t, err
		}
		if m.subjectOnly() {
			t.named = o.event()
		}
	}
	return t, resolveCgroup(m, &t)
}

// tryLearning finds out whether the kernel calls programs at all.
func (k *kernel) tryLearning() error {
	m := Match{File: "/proc/self/status"}
	s, err := lookFor(&m)
	if err != nil {
		return err
	}
	defer s.close()
	_, err = k.resolve(&m, s)
	return err
}

func (k *kernel) learnOpened(o *opened) (learnedFile, error) {
	return k.learn(func() error {
		fd, err := unix.Open(o.again(), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", o.path, err)
		}
		return unix.Close(fd)
	})
}

// cgroupHandle is the kind of a file handle that is a kernfs node's id (FILEID_KERNFS of the kernel).
const cgroupHandle = 0xfe

// resolveCgroup finds a control group of version 2 by its path or number, and sets m's path.
func resolveCgroup(m *Match, t *target) error {
	if m.CgroupID != 0 {
		path, err := cgroupByID(m.CgroupID)
		if err != nil {
			return fmt.Errorf("%w: control group %d: %w", ErrNotFound, m.CgroupID, err)
		}
		m.Cgroup, m.CgroupID = path, 0
	}
	if m.Cgroup == "" {
		return nil
	}
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, cgroup2.Root+m.Cgroup, 0)
	if err != nil {
		return fmt.Errorf("%w: control group %s: %w", ErrNotFound, m.Cgroup, err)
	}
	if handle.Type() != cgroupHandle || len(handle.Bytes()) != 8 {
		return invalid("%s is no control group of version 2", m.Cgroup)
	}
	t.cgroup = binary.NativeEndian.Uint64(handle.Bytes())
	t.level = uint32(strings.Count(m.Cgroup, "/"))
	if m.Cgroup == "/" || t.level >= maxLevels {
		return invalid("the control group %s must be 1 to %d below the root", m.Cgroup, maxLevels-1)
	}
	return nil
}

func cgroupByID(id uint64) (string, error) {
	root, err := unix.Open(cgroup2.Root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(root)
	fd, err := unix.OpenByHandleAt(root, unix.NewFileHandle(cgroupHandle, binary.NativeEndian.AppendUint64(nil, id)), unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", err
	}
	rest, ok := strings.CutPrefix(path, cgroup2.Root)
	if !ok || rest == "" {
		return "", invalid("it is not below %s", cgroup2.Root)
	}
	return rest, nil
}

// programsIn calls f with what the processes in a control group and below it execute, until f returns false.
func programsIn(cgroup string, f func(*event.File) bool) {
	errDone := errors.New("done")
	_ = filepath.WalkDir(cgroup2.Root+cgroup, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // it went meanwhile
		}
		text, _ := os.ReadFile(path + "/cgroup.procs")
		for _, pid := range strings.Fields(string(text)) {
			o, err := look("/proc/" + pid + "/exe")
			if err != nil {
				continue
			}
			file := o.event()
			o.close()
			if !f(&file) {
				return errDone
			}
		}
		return nil
	})
}
