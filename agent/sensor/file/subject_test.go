package file

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// subject executes the commands on its standard input, one a line, and answers each with "ERRNO NANOSECONDS".
func subject() {
	in := bufio.NewScanner(os.Stdin)
	held := make(map[string]int)
	maps := make(map[string][]byte)
	fmt.Println("ready")
	for in.Scan() {
		f := strings.Split(in.Text(), "\t")
		start := time.Now()
		err := act(f, held, maps)
		var errno syscall.Errno
		if err != nil && !errors.As(err, &errno) {
			fmt.Fprintln(os.Stderr, "subject:", err)
			errno = 999
		}
		fmt.Printf("%d %d\n", int(errno), time.Since(start).Nanoseconds())
	}
}

func act(f []string, held map[string]int, maps map[string][]byte) error {
	switch f[0] {
	case "open":
		return openClose(f[1], unix.O_RDONLY)
	case "openmany": // openmany PATH N
		n, _ := strconv.Atoi(f[2])
		for range n {
			if err := openClose(f[1], unix.O_RDONLY); err != nil {
				return err
			}
		}
	case "openpar": // openpar PATH N
		n, _ := strconv.Atoi(f[2])
		return openParallel(f[1], n)
	case "exec":
		return run(f[1])
	case "execmany":
		n, _ := strconv.Atoi(f[2])
		for range n {
			if err := run(f[1]); err != nil {
				return err
			}
		}
	case "write": // append through write(2)
		fd, err := unix.Open(f[1], unix.O_WRONLY|unix.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = unix.Write(fd, []byte("x"))
		_ = unix.Close(fd)
		return err
	case "create":
		fd, err := unix.Open(f[1], unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		_, err = unix.Write(fd, []byte("x"))
		_ = unix.Close(fd)
		return err
	case "pwrite", "fallocate", "copy_file_range", "splice", "ftruncate":
		return change1(f[0], f[1])
	case "otrunc":
		return openClose(f[1], unix.O_WRONLY|unix.O_TRUNC)
	case "truncate":
		return unix.Truncate(f[1], 2)
	case "chmod":
		return unix.Chmod(f[1], 0o755)
	case "utimes":
		return unix.Utimes(f[1], []unix.Timeval{{Sec: 1}, {Sec: 1}})
	case "openwrite": // without writing
		return openClose(f[1], unix.O_RDWR)
	case "rename":
		return unix.Rename(f[1], f[2])
	case "link":
		return unix.Link(f[1], f[2])
	case "unlink":
		return unix.Unlink(f[1])
	case "rmdir":
		return unix.Rmdir(f[1])
	case "creates": // creates DIR N
		n, _ := strconv.Atoi(f[2])
		for i := range n {
			fd, err := unix.Open(fmt.Sprintf("%s/%d", f[1], i), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o644)
			if err != nil {
				return err
			}
			_ = unix.Close(fd)
		}
	case "mkdir":
		return unix.Mkdir(f[1], 0o755)
	case "mount": // mount FSTYPE SOURCE TARGET OPTIONS
		return unix.Mount(f[2], f[3], f[1], 0, f[4])
	case "bind":
		return unix.Mount(f[1], f[2], "", unix.MS_BIND, "")
	case "umount":
		return unix.Unmount(f[1], 0)
	case "pivot": // make the mount the root, as container runtimes do
		if err := unix.Chdir(f[1]); err != nil {
			return err
		}
		if err := unix.PivotRoot(".", "."); err != nil {
			return err
		}
		return unix.Unmount(".", unix.MNT_DETACH)
	case "unshare":
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
		return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	case "hold": // keep it open for writing
		fd, err := unix.Open(f[1], unix.O_RDWR, 0)
		held[f[1]] = fd
		return err
	case "letgo":
		return unix.Close(held[f[1]])
	case "map": // map it shared for writing and close the descriptor
		fd, err := unix.Open(f[1], unix.O_RDWR, 0)
		if err != nil {
			return err
		}
		b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		_ = unix.Close(fd)
		maps[f[1]] = b
		return err
	case "store":
		maps[f[1]][0]++
	case "unmap":
		return unix.Munmap(maps[f[1]])
	case "sleep":
		n, _ := strconv.Atoi(f[1])
		time.Sleep(time.Duration(n) * time.Millisecond)
	default:
		return fmt.Errorf("unknown command %q", f[0])
	}
	return nil
}

func openClose(path string, flags int) error {
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// run executes path in a child and returns the errno of execve.
func run(path string) error {
	p, err := os.StartProcess(path, []string{path}, &os.ProcAttr{Files: []*os.File{nil, nil, os.Stderr}})
	var refused *os.PathError
	if errors.As(err, &refused) {
		return refused.Err
	}
	if err != nil {
		return err
	}
	state, err := p.Wait()
	if err == nil && !state.Success() {
		return fmt.Errorf("%s: %v", path, state)
	}
	return err
}

// openParallel opens path from n threads at once and returns the first error.
func openParallel(path string, n int) error {
	errs := make(chan error, n)
	for range n {
		go func() { errs <- openClose(path, unix.O_RDONLY) }()
	}
	var first error
	for range n {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

func change1(how, path string) error {
	fd, err := unix.Open(path, unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	switch how {
	case "pwrite":
		_, err = unix.Pwrite(fd, []byte("y"), 1)
	case "fallocate":
		err = unix.Fallocate(fd, 0, 0, 8192)
	case "ftruncate":
		err = unix.Ftruncate(fd, 1)
	case "copy_file_range", "splice":
		var src *os.File
		if src, err = os.Open("/proc/self/exe"); err != nil {
			return err
		}
		defer func() { _ = src.Close() }()
		if how == "splice" {
			var p [2]int
			if err = unix.Pipe(p[:]); err != nil {
				return err
			}
			_, _ = unix.Write(p[1], []byte("z"))
			_, err = unix.Splice(p[0], nil, fd, nil, 1, 0)
			_, _ = unix.Close(p[0]), unix.Close(p[1])
			return err
		}
		// Both files must be on one file system on old kernels: copy within the file.
		var from, to int64 = 0, 4
		_, err = unix.CopyFileRange(fd, &from, fd, &to, 2, 0)
	}
	return err
}

// proc is a running subject.
type proc struct {
	t   testing.TB
	cmd *exec.Cmd
	mu  sync.Mutex
	in  io.WriteCloser
	out *bufio.Reader
}

func startSubject(t testing.TB) *proc {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{envSubject + "=1", "GOMAXPROCS=1"}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &proc{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	if line, err := p.out.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("subject did not start: %q, %v", line, err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		// A subject that a failed test left in a question would keep the sensor, which stops later, from answering it.
		kill := time.AfterFunc(waitLimit/2, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		_ = cmd.Wait()
		if stderr.Len() > 0 {
			t.Log(stderr.String())
		}
	})
	return p
}

func (p *proc) pid() uint32 { return uint32(p.cmd.Process.Pid) }

// try executes a command and returns its errno and how long it took.
func (p *proc) try(words ...string) (syscall.Errno, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := fmt.Fprintln(p.in, strings.Join(words, "\t")); err != nil {
		p.t.Errorf("command the subject: %v", err)
		return 999, 0
	}
	var errno, took int
	line, err := p.out.ReadString('\n')
	if _, err2 := fmt.Sscan(line, &errno, &took); err != nil || err2 != nil {
		p.t.Errorf("the subject answered %q to %q: %v %v", line, words, err, err2)
		return 999, 0
	}
	return syscall.Errno(errno), time.Duration(took)
}

// do executes a command that must succeed.
func (p *proc) do(words ...string) time.Duration {
	p.t.Helper()
	errno, took := p.try(words...)
	if errno != 0 {
		p.t.Fatalf("%s: %v (%d)", strings.Join(words, " "), errno, int(errno))
	}
	return took
}
