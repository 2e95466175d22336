package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The metrics. Cold and cached say whether the lane has seen the files before; the page cache is warm in both.
const (
	metricExec       = "exec"
	metricOpenCold   = "open_cold"
	metricOpenCached = "open_cached"
	metricBuild      = "go_build"
	metricTar        = "tar"
	metricTarAgain   = "tar_again"
)

var metrics = []string{metricExec, metricOpenCold, metricOpenCached, metricBuild, metricTar, metricTarAgain}

// sample is one lane's times in seconds in one round. Keys that begin with "note:" carry what the lane said at its end.
type sample map[string]float64

func (s sample) String() string {
	keys := make([]string, 0, len(s))
	for k := range s {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var b strings.Builder
	for _, k := range keys {
		if strings.HasPrefix(k, "note:") {
			fmt.Fprintf(&b, "%s ", k)
			continue
		}
		fmt.Fprintf(&b, "%s=%.3fs ", k, s[k])
	}
	return strings.TrimSpace(b.String())
}

// work does everything once in the lane that runs now.
func (w *world) work(ctx context.Context, o options, nonce string, beat func()) (sample, error) {
	s := sample{}
	err := awaitQuiet(ctx, beat)
	if err != nil {
		return nil, err
	}
	if o.buildAlone {
		s[metricBuild], err = w.goBuild(ctx, nonce)
		beat()
		return s, errors.Join(err, ctx.Err())
	}
	if s[metricOpenCold], err = w.openLoop(beat); err != nil {
		return nil, err
	}
	if s[metricOpenCached], err = medianOf(3, func() (float64, error) { return w.openLoop(beat) }); err != nil {
		return nil, err
	}
	if s[metricExec], err = medianOf(3, func() (float64, error) { return w.execLoop(ctx, o.execs, beat) }); err != nil {
		return nil, err
	}
	if s[metricTar], err = w.tarTree(ctx); err != nil {
		return nil, err
	}
	beat()
	if s[metricTarAgain], err = w.tarTree(ctx); err != nil {
		return nil, err
	}
	beat()
	if o.build {
		if s[metricBuild], err = w.goBuild(ctx, nonce); err != nil {
			return nil, err
		}
	}
	beat()
	return s, ctx.Err()
}

// medianOf measures n times.
func medianOf(n int, measure func() (float64, error)) (float64, error) {
	var all []float64
	for range n {
		took, err := measure()
		if err != nil {
			return 0, err
		}
		all = append(all, took)
	}
	return median(all), nil
}

// openLoop opens, reads and closes every file once.
func (w *world) openLoop(beat func()) (float64, error) {
	buf := make([]byte, 8192)
	begin := time.Now()
	for i, f := range w.files {
		fd, err := unix.Open(f, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, fmt.Errorf("open %s: %w", f, err)
		}
		if _, err := unix.Read(fd, buf); err != nil {
			return 0, fmt.Errorf("read %s: %w", f, err)
		}
		unix.Close(fd)
		if i%1000 == 0 {
			beat()
		}
	}
	return time.Since(begin).Seconds(), nil
}

// execLoop starts a program that does nothing and waits for it, n times.
func (w *world) execLoop(ctx context.Context, n int, beat func()) (float64, error) {
	program := filepath.Join(fsDir, "nothing")
	begin := time.Now()
	for i := range n {
		pid, err := syscall.ForkExec(program, []string{program}, &syscall.ProcAttr{})
		if err != nil {
			return 0, fmt.Errorf("execute %s: %w", program, err)
		}
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
			return 0, fmt.Errorf("wait for %s: %w, status %d", program, err, status)
		}
		if i%100 == 0 {
			beat()
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
		}
	}
	return time.Since(begin).Seconds(), nil
}

// goBuild compiles all packages of the repository's copy and links the agent; dependencies come from the cache. The nonce
// makes the compiler's arguments new, so that nothing of the repository does.
func (w *world) goBuild(ctx context.Context, nonce string) (float64, error) {
	target := "./..."
	if _, err := os.Stat(filepath.Join(fsDir, "src/cmd/bailey")); err == nil {
		target = "./cmd/bailey"
	}
	nonce = fmt.Sprintf("/%s-%d", nonce, time.Now().UnixNano())
	cmd := exec.CommandContext(ctx, filepath.Join(fsDir, "go/bin/go"), "build", "-mod=vendor", "-buildvcs=false",
		"-gcflags=bailey/...=-trimpath="+nonce, "-o", filepath.Join(fsDir, "out")+"/", target)
	cmd.Dir = filepath.Join(fsDir, "src")
	cmd.Env = []string{"HOME=" + fsDir, "GOROOT=" + filepath.Join(fsDir, "go"), "GOCACHE=" + filepath.Join(fsDir, "gocache"),
		"TMPDIR=" + filepath.Join(fsDir, "tmp"), "GOFLAGS=", "GOTOOLCHAIN=local", "CGO_ENABLED=0", "PATH=/usr/bin:/bin"}
	if err := os.MkdirAll(filepath.Join(fsDir, "tmp"), 0o755); err != nil {
		return 0, err
	}
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return time.Since(begin).Seconds(), nil
}

// tarTree packs the Go source tree into a pipe: tar reads no file when it knows that the archive is /dev/null.
func (w *world) tarTree(ctx context.Context) (float64, error) {
	cmd := exec.CommandContext(ctx, "tar", "-C", filepath.Join(fsDir, "go"), "-cf", "-", "src")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{out}, make([]byte, 1<<20))
	if err != nil {
		return 0, fmt.Errorf("read tar's output: %w", err)
	}
	if err := cmd.Wait(); err != nil || n < 10<<20 {
		return 0, fmt.Errorf("tar packed %d bytes: %w", n, err)
	}
	return time.Since(begin).Seconds(), nil
}

// emptyProgram returns a static ELF program of one page that exits with 0 at once.
func emptyProgram() []byte {
	code := []byte{0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05} // xor edi,edi; mov eax,60 (exit); syscall
	machine := uint16(62)
	if runtime.GOARCH == "arm64" {
		code = []byte{0x00, 0x00, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4} // mov x0,0; mov x8,93; svc 0
		machine = 183
	}
	const base, header = 0x400000, 64 + 56
	var b []byte
	le := binary.LittleEndian
	b = append(b, 0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = le.AppendUint16(b, 2) // executable
	b = le.AppendUint16(b, machine)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, base+header) // entry
	b = le.AppendUint64(b, 64)          // program headers
	b = le.AppendUint64(b, 0)
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1) // load
	b = le.AppendUint32(b, 5) // readable, executable
	size := uint64(header + len(code))
	for _, v := range []uint64{0, base, base, size, size, 0x1000} {
		b = le.AppendUint64(b, v)
	}
	return append(b, code...)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Clone(v)
	sort.Float64s(s)
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
