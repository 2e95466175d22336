package question_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"bailey/sdk"

	"golang.org/x/sys/unix"
)

// This test binary is started again as product and as opener, which it learns from these.
const (
	envProduct = "BAILEY_QUESTION_PRODUCT"
	envOpener  = "BAILEY_QUESTION_OPENER"
)

// product allows what it is asked, and never for the next time.
func product() {
	err := sdk.Run(context.Background(), sdk.Product{
		Questions: []sdk.Kind{sdk.Open}, Workers: sdk.Inline,
		OnQuestion: func(_ context.Context, q *sdk.Question) sdk.Answer {
			if q.File.GetPath() == "/nowhere" {
				return sdk.Deny
			}
			return sdk.Allow
		},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// opener opens and closes files as often as each line of its standard input says, and answers with the median duration.
func opener() {
	var paths []*byte
	for i := range fileCount {
		p, err := unix.BytePtrFromString(filepath.Join(os.Getenv(envOpener), strconv.Itoa(i)))
		if err != nil {
			fail(err)
		}
		paths = append(paths, p)
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		n, err := strconv.Atoi(in.Text())
		if err != nil {
			fail(err)
		}
		took := make([]time.Duration, n)
		for i := range took {
			start := time.Now()
			if errno := openClose(paths[i%len(paths)]); errno != 0 {
				fail(errno)
			}
			took[i] = time.Since(start)
		}
		slices.Sort(took)
		fmt.Println(took[n/2].Nanoseconds())
	}
}

// openClose does not tell Go's runtime that it blocks: the runtime's own care for blocked threads would be measured too,
// which openers in other languages do not have.
func openClose(path *byte) unix.Errno {
	const cwd = ^uintptr(99) // AT_FDCWD
	fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, cwd, uintptr(unsafe.Pointer(path)), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	_, _, errno = unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	return errno
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// openerProc is the running opener.
type openerProc struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startOpener(b *testing.B, dir string) *openerProc {
	b.Helper()
	p := &openerProc{cmd: exec.Command("/proc/self/exe")}
	p.cmd.Env = []string{envOpener + "=" + dir, "GOMAXPROCS=1", "GOGC=off"}
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	p.in, p.out = in, bufio.NewReader(out)
	if err := ordinary(p.cmd); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		if err := p.cmd.Wait(); err != nil {
			b.Errorf("opener: %v", err)
		}
	})
	return p
}

// open has n files opened and returns the median duration of an open and close.
func (p *openerProc) open(tb testing.TB, n int) time.Duration {
	tb.Helper()
	if _, err := fmt.Fprintln(p.in, n); err != nil {
		tb.Fatal(err)
	}
	var ns int64
	if _, err := fmt.Fscanln(p.out, &ns); err != nil {
		tb.Fatalf("the opener's answer: %v", err)
	}
	return time.Duration(ns)
}
