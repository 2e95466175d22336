// Package kernel keeps kernels of Debian's archive for virtual machines: downloaded once, unpacked, never installed. It boots
// nothing.
//
// Invariant: the host's own package sources, lists and modules stay as they are; what is cached needs no network.
package kernel

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"bailey/test/vm/cache"
)

// Source says which kernel of Debian's archive is meant: the newest of a release, or of the backports to it.
type Source struct {
	Suite     string
	Backports bool
}

// The kernels that tests run on.
var (
	Debian12 = Source{Suite: "bookworm"}                // 6.1
	Debian13 = Source{Suite: "trixie"}                  // 6.12
	Newest   = Source{Suite: "trixie", Backports: true} // the newest that is made for a released Debian
)

// String is the kernel's name in the cache.
func (s Source) String() string {
	if s.Backports {
		return s.Suite + "-backports"
	}
	return s.Suite
}

// Kernel is an unpacked kernel package.
type Kernel struct {
	Release string
	Image   string // the uncompressed kernel: QEMU starts it directly, and decompressing is most of an emulated boot
	Busybox string // a static one of the same release
	modules string // the directory of this release
}

// Get returns the kernel from the cache in dir, downloading it the first time.
func Get(ctx context.Context, dir string, s Source) (*Kernel, error) {
	root := filepath.Join(dir, s.String())
	err := cache.Once(root, func(unfinished string) error {
		fmt.Fprintf(os.Stderr, "vm: downloading the kernel of %s (about 100 MB, once)\n", s)
		return download(ctx, unfinished, s)
	})
	if err != nil {
		return nil, fmt.Errorf("get the kernel of %s: %w", s, err)
	}
	modules, _, err := contents(root)
	if err != nil {
		return nil, fmt.Errorf("%s: remove it and try again: %w", root, err)
	}
	k := &Kernel{Release: filepath.Base(modules), Image: filepath.Join(root, "vmlinux"), modules: modules}
	if k.Busybox = filepath.Join(root, "bin/busybox"); !exists(k.Busybox) {
		k.Busybox = filepath.Join(root, "usr/bin/busybox")
	}
	return k, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// contents returns the directory of the modules, which is named for the kernel's release, and the compressed kernel, of which a
// package has one. Where they are changed with Debian 13 and after it.
func contents(root string) (modules, image string, err error) {
	for _, dir := range []string{"lib/modules/*", "usr/lib/modules/*"} {
		found, err := filepath.Glob(filepath.Join(root, dir))
		if err != nil || len(found) != 1 {
			continue
		}
		for _, image := range []string{filepath.Join(root, "boot/vmlinuz-"+filepath.Base(found[0])), filepath.Join(found[0], "vmlinuz")} {
			if exists(image) {
				return found[0], image, nil
			}
		}
	}
	return "", "", fmt.Errorf("no kernel with modules is in %s", root)
}
