package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// fsDir is where the bench's filesystem is mounted, inside the private mount namespace, on a tmpfs that hides the host's /run.
const fsDir = "/run/bench"

// world is the bench's filesystem with everything that is worked on.
type world struct {
	opts   options
	log    *slog.Logger
	repo   string // the repository that is built
	fsType string // the type that only the bench's filesystem has
	files  []string
	key    string
}

func newWorld(ctx context.Context, o options, log *slog.Logger) (*world, error) {
	if err := o.absolute(); err != nil {
		return nil, err
	}
	repo, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the repository: %w", err)
	}
	w := &world{opts: o, log: log, repo: repo}
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"make the mount namespace private", w.private}, {"choose a filesystem type", w.chooseType},
		{"make the image", w.image}, {"fill the image", w.fill}, {"warm the build cache", w.warm},
	}
	for _, s := range steps {
		if err := s.do(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return w, nil
}

// private cuts mount propagation to the host, hides /run, and lays writable layers over the directories that fapolicyd has
// compiled in, so that nothing is left on the host.
func (w *world) private(context.Context) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("bench", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs on /run: %w", err)
	}
	for _, dir := range []string{"/etc", "/var/lib", "/usr/share"} {
		layer := "/run/layer" + strings.ReplaceAll(dir, "/", "_")
		for _, d := range []string{layer + "/upper", layer + "/work"} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		opts := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", dir, layer, layer)
		if err := unix.Mount("overlay", dir, "overlay", 0, opts); err != nil {
			return fmt.Errorf("mount an overlay on %s: %w", dir, err)
		}
	}
	return nil
}

// chooseType finds a filesystem type that can be made here and that no mount of this namespace has.
func (w *world) chooseType(context.Context) error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	for _, t := range []string{"ext2", "ext3", "ext4"} {
		if _, err := exec.LookPath("mkfs." + t); err == nil && strings.Contains(string(known), "\t"+t+"\n") && !strings.Contains(string(mounts), " "+t+" ") {
			w.fsType = t
			return nil
		}
	}
	return errors.New("ext2, ext3 and ext4 are all mounted or cannot be made here")
}

// image mounts the loop image of the present key, made anew when there is none.
func (w *world) image(ctx context.Context) error {
	head, err := exec.CommandContext(ctx, "git", "-C", w.repo, "rev-parse", "HEAD").Output()
	if err != nil {
		return fmt.Errorf("ask git for the commit: %w", err)
	}
	w.key = fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "2 %s %s %d %s", head, runtime.Version(), w.opts.files, w.fsType)))[:16]
	img := filepath.Join(w.opts.cache, "image-"+w.key)
	if err := os.MkdirAll(w.opts.cache, 0o755); err != nil {
		return err
	}
	if _, err := os.Stat(img); err != nil {
		old, _ := filepath.Glob(filepath.Join(w.opts.cache, "image-*"))
		for _, o := range old {
			_ = os.Remove(o)
		}
		if err := os.WriteFile(img+".new", nil, 0o600); err != nil {
			return err
		}
		if err := os.Truncate(img+".new", 8<<30); err != nil {
			return err
		}
		if err := command(ctx, "mkfs."+w.fsType, "-q", "-F", "-N", "300000", img+".new"); err != nil {
			return err
		}
		if err := os.Rename(img+".new", img); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(fsDir, 0o755); err != nil {
		return err
	}
	return command(ctx, "mount", "-t", w.fsType, "-o", "loop,noatime", img, fsDir)
}

// fill writes what is worked on: files for the open loop, a Go toolchain, this repository with its dependencies, and a
// program that does nothing.
func (w *world) fill(ctx context.Context) error {
	for i := range w.opts.files {
		w.files = append(w.files, filepath.Join(fsDir, "files", strconv.Itoa(i%100), "f"+strconv.Itoa(i)))
	}
	done := filepath.Join(fsDir, "filled")
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	w.log.Info("filling the image", "files", len(w.files))
	if err := w.writeFiles(); err != nil {
		return err
	}
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("ask go for its root: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(fsDir, "go"), 0o755); err != nil {
		return err
	}
	root := strings.TrimSpace(string(goroot))
	for _, d := range []string{"bin", "pkg", "src", "VERSION", "go.env"} {
		if err := command(ctx, "cp", "-a", filepath.Join(root, d), filepath.Join(fsDir, "go")); err != nil {
			return err
		}
	}
	src := filepath.Join(fsDir, "src")
	if err := command(ctx, "git", "clone", "-q", "--no-hardlinks", "-c", "safe.directory=*", w.repo, src); err != nil {
		return err
	}
	vendor := exec.CommandContext(ctx, "go", "mod", "vendor")
	vendor.Dir = src
	if out, err := vendor.CombinedOutput(); err != nil {
		return fmt.Errorf("go mod vendor: %w\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(fsDir, "nothing"), emptyProgram(), 0o755); err != nil {
		return err
	}
	return os.WriteFile(done, nil, 0o600)
}

// writeFiles writes the open loop's files: 4 KiB each, text and binary in turn, the same in every run.
func (w *world) writeFiles() error {
	r := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, 4096)
	for i, f := range w.files {
		if i < 100 {
			if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
				return err
			}
		}
		for j := range buf {
			buf[j] = "abcdefghijklmno\n"[r.IntN(16)]
			if i%2 == 1 {
				buf[j] = byte(r.IntN(256))
			}
		}
		if err := os.WriteFile(f, buf, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// warm builds once, so that every measured build compiles this repository's own packages and nothing else, and reads all
// that is worked on once, so that no lane pays for the disk.
func (w *world) warm(ctx context.Context) error {
	if w.opts.build {
		if _, err := w.goBuild(ctx, "warm"); err != nil {
			return err
		}
	}
	if _, err := w.openLoop(func() {}); err != nil {
		return err
	}
	_, err := w.tarTree(ctx)
	return err
}

// settle lets what the last lane left to the kernel (dirty pages) finish before the next is measured.
func (w *world) settle(ctx context.Context) error {
	unix.Sync()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(500 * time.Millisecond):
		return nil
	}
}

// close unmounts the filesystem; the namespace would do it too.
func (w *world) close() {
	if err := unix.Unmount(fsDir, 0); err != nil {
		w.log.Warn("unmount the bench's filesystem", "err", err)
	}
}

// command runs a program to its end; its output is in the error.
func command(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
