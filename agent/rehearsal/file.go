package rehearsal

import (
	"errors"
	"fmt"

	"bailey/agent/event"

	"golang.org/x/sys/unix"
)

// errChanged says that a file is not what it was when it was asked about.
var errChanged = errors.New("the file is not what it was")

func closeFD(fd int) { _ = unix.Close(fd) } // it was not written to

// look opens the file at a path for nothing but looking at it. Devices and pipes are not touched.
func look(path string) (fd int, f event.File, err error) {
	fd, err = unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, f, fmt.Errorf("open %s: %w", path, err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		closeFD(fd)
		return -1, f, fmt.Errorf("look at %s: %w", path, err)
	}
	return fd, event.File{
		Path: path, Dev: st.Dev, Ino: st.Ino, CTime: st.Ctim.Nano(), MTime: st.Mtim.Nano(), Size: st.Size, Mode: st.Mode, UID: st.Uid, GID: st.Gid,
	}, nil
}

// open opens the very file that f was, for reading.
func open(f *event.File) (int, error) {
	if f.Path == "" || f.Deleted {
		return -1, errChanged
	}
	fd, now, err := look(f.Path)
	if err != nil {
		return -1, errChanged
	}
	defer closeFD(fd)
	if keyOf(&now) != keyOf(f) || now.Size != f.Size {
		return -1, errChanged
	}
	out, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, errChanged
	}
	return out, nil
}

// descriptor opens what a question is about, for reading. Of a file that lies nowhere it completes what the question says of it.
func (q *question) descriptor() (int, error) {
	switch q.from {
	case fromGood:
		return q.completed(sealed(q.data))
	case fromOwn:
		f, err := q.own.set.Open(&q.own.test)
		if err != nil {
			return -1, err
		}
		defer f.Close()
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		return q.completed(fd, err)
	}
	return open(&q.file)
}

// completed fills in what only the file that is open can say.
func (q *question) completed(fd int, err error) (int, error) {
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", q.file.Path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		closeFD(fd)
		return -1, fmt.Errorf("look at %s: %w", q.file.Path, err)
	}
	q.file.Dev, q.file.Ino, q.file.CTime, q.file.MTime, q.file.Size = st.Dev, st.Ino, st.Ctim.Nano(), st.Mtim.Nano(), st.Size
	return fd, nil
}

// sealed makes a file in memory that nobody can change.
func sealed(data []byte) (int, error) {
	fd, err := unix.MemfdCreate("corpus", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before 6.3
		fd, err = unix.MemfdCreate("corpus", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return -1, err
	}
	defer closeFD(fd)
	if n, err := unix.Write(fd, data); err != nil || n != len(data) {
		return -1, fmt.Errorf("%d of %d bytes were written: %w", n, len(data), errors.Join(err))
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return -1, err
	}
	return unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
}
