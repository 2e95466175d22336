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
