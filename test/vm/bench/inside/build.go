package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// buildable says whether the host gave a toolchain.
func buildable() bool {
	_, err := os.Stat("/tests/go")
	return err == nil
}

// addToolchain moves what the host gave to the filesystem that is worked on, and builds once: the build cache then has all that is not
// compiled again.
func (w *world) addToolchain() error {
	for from, to := range map[string]string{"go": "usr/local/go", "gocache": "home/someone/.cache/go-build", "source": "home/someone/src/program"} {
		if err := os.CopyFS(filepath.Join(w.o.disk, to), os.DirFS("/tests/"+from)); err != nil {
			return err
		}
		if err := os.RemoveAll("/tests/" + from); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(w.o.disk, "tmp"), 0o777); err != nil {
		return err
	}
	_, err := w.build()
	return err
}

// build builds the program anew and returns how long that took.
func (w *world) build() (time.Duration, error) {
	w.builds++
	home, root := filepath.Join(w.o.disk, "home/someone"), filepath.Join(w.o.disk, "usr/local/go")
	// What the compiler is told is new each time, so that nothing of the program is in the build cache.
	cmd := exec.Command(filepath.Join(root, "bin/go"), "build", "-gcflags=program/...=-trimpath=/"+strconv.Itoa(w.builds), "-o", home+"/program", ".")
	cmd.Dir = home + "/src/program"
	cmd.Env = []string{"HOME=" + home, "GOROOT=" + root, "GOCACHE=" + home + "/.cache/go-build", "TMPDIR=" + w.o.disk + "/tmp",
		"GOFLAGS=", "GOTOOLCHAIN=local", "GOPROXY=off", "CGO_ENABLED=0", "PATH=/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: w.session}
	unix.Sync()
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return time.Since(begin), nil
}
