package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"bailey/test/vm/bench/figure"

	"golang.org/x/sys/unix"
)

// Sizes of a measurement. A batch is long enough that a timer's tick in it does not show, and the median of the batches leaves out the
// one in which the journal of the filesystem was written.
const (
	files = 64
	depth = "home/someone/src/project/package" // as deep as source code lies
)

// operation is done n times in a batch.
type operation struct {
	name  string
	n     int
	batch func(n int) error
}

// work is a process of its own in each lane: the kernel decides about some things when a process starts.
type work struct {
	disk    string
	read    []*byte
	created *byte
	program string
	fd      int
	buf     [64]byte // copying is not what is measured
}

func newWork(disk string) (*work, error) {
	w := &work{disk: disk, program: filepath.Join(disk, "bin/nothing")}
	dir := filepath.Join(disk, depth)
	for i := range files {
		p, err := unix.BytePtrFromString(filepath.Join(dir, "file"+strconv.Itoa(i)))
		if err != nil {
			return nil, err
		}
		w.read = append(w.read, p)
	}
	var err error
	if w.created, err = unix.BytePtrFromString(filepath.Join(dir, "created")); err != nil {
		return nil, err
	}
	w.fd, err = unix.Open(filepath.Join(dir, "file0"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return w, err
}

func (w *work) operations() []operation {
	return []operation{
		{figure.Exec, 50, w.execs}, {figure.Open, 200, w.opens}, {figure.Create, 100, w.creates},
		{figure.Read, 500, w.reads}, {figure.Ioctl, 500, w.ioctls},
	}
}

// measure does every operation in batches, after two that do not count.
func (w *work) measure(batches int) (map[string][]float64, error) {
	out := map[string][]float64{}
	for _, op := range w.operations() {
		for i := range batches + 2 {
			begin := time.Now()
			if err := op.batch(op.n); err != nil {
				return nil, fmt.Errorf("%s: %w", op.name, err)
			}
			if i >= 2 {
				out[op.name] = append(out[op.name], float64(time.Since(begin).Nanoseconds())/float64(op.n))
			}
		}
	}
	return out, nil
}

func (w *work) execs(n int) error {
	for range n {
		pid, err := syscall.ForkExec(w.program, []string{w.program}, &syscall.ProcAttr{})
		if err != nil {
			return err
		}
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
			return fmt.Errorf("wait for %s: %w, status %d", w.program, err, status)
		}
	}
	return nil
}

// The system calls go past Go's runtime: its care for blocked threads would be measured too.
const here = ^uintptr(99) // AT_FDCWD

func (w *work) opens(n int) error {
	for i := range n {
		fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, here, uintptr(unsafe.Pointer(w.read[i%files])), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&w.buf)), uintptr(len(w.buf))); errno != 0 {
			return errno
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0); errno != 0 {
			return errno
		}
	}
	return nil
}

func (w *work) creates(n int) error {
	for range n {
		const flags = unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY | unix.O_CLOEXEC
		fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, here, uintptr(unsafe.Pointer(w.created)), flags, 0o644, 0, 0)
		if errno != 0 {
			return errno
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0); errno != 0 {
			return errno
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_UNLINKAT, here, uintptr(unsafe.Pointer(w.created)), 0); errno != 0 {
			return errno
		}
	}
	return nil
}

func (w *work) reads(n int) error {
	for range n {
		if _, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(w.fd), uintptr(unsafe.Pointer(&w.buf)), uintptr(len(w.buf)), 0, 0, 0); errno != 0 {
			return errno
		}
	}
	return nil
}

func (w *work) ioctls(n int) error {
	var left int32
	for range n {
		if _, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(w.fd), unix.TIOCINQ, uintptr(unsafe.Pointer(&left))); errno != 0 {
			return errno
		}
	}
	return nil
}

// workHere is the process that works: it writes what it measured to its standard output.
func workHere(disk string, batches int, hooks bool) error {
	runtime.LockOSThread()
	w, err := newWork(disk)
	if err != nil {
		return fmt.Errorf("prepare the work: %w", err)
	}
	var l figure.Lane
	if l.Nanoseconds, err = w.measure(batches); err != nil {
		return err
	}
	if hooks {
		if l.Hooks, err = w.hooks(); err != nil {
			return fmt.Errorf("ask what each program costs: %w", err)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(l)
}

// workApart has a process work, in the control group session.
func workApart(session int, disk string, batches int, hooks bool) (l figure.Lane, err error) {
	cmd := exec.Command("/proc/self/exe", "-work", "-disk="+disk, "-batches="+strconv.Itoa(batches), "-hooks="+strconv.FormatBool(hooks))
	cmd.Env = append(os.Environ(), "GOGC=off", "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: session}
	out, err := cmd.Output()
	if err != nil {
		return l, fmt.Errorf("work: %w", err)
	}
	return l, json.Unmarshal(out, &l)
}
