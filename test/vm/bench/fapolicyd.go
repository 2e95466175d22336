package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"bailey/test/bench/contender"
	"bailey/test/vm/cache"
	"bailey/test/vm/initramfs"
)

// addFapolicyd adds Debian's fapolicyd, unpacked and never installed, with the host's libraries.
func (p *pack) addFapolicyd(ctx context.Context, a *initramfs.Archive) error {
	root := filepath.Join(p.o.cache, "fapolicyd")
	if err := cache.Once(root, func(unfinished string) error { return fetchFapolicyd(ctx, unfinished) }); err != nil {
		return fmt.Errorf("get fapolicyd: %w", err)
	}
	version, err := os.ReadFile(filepath.Join(root, "version"))
	if err != nil {
		return fmt.Errorf("read fapolicyd's version: %w", err)
	}
	p.fapolicyd = strings.TrimSuffix(strings.TrimSpace(string(version)), ".deb")
	err = a.Dynamic("bin/fapolicyd", filepath.Join(root, "usr/sbin/fapolicyd"))
	if err != nil {
		return fmt.Errorf("%w: run `sh tools/setup.sh bench-vm`", err)
	}
	const magic = "usr/share/fapolicyd/fapolicyd-magic.mgc"
	return errors.Join(a.File(magic, filepath.Join(root, magic)), a.File("usr/lib/file/magic.mgc", "/usr/lib/file/magic.mgc"),
		a.Link("usr/share/misc/magic.mgc", "../../lib/file/magic.mgc"))
}

func fetchFapolicyd(ctx context.Context, root string) error {
	deb, err := contender.FetchFapolicyd(ctx, root)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, "version"), []byte(deb+"\n"), 0o644)
}
