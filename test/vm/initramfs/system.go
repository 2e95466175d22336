package initramfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"bailey/test/vm/kernel"
)

// modules are those that guests need beyond what Debian builds in; what they depend on is found.
var modules = []string{"overlay", "loop", "ext4", "virtio_pci", "virtio_blk"}

// spare are modules that lie in /lib/modules, with what they depend on in the order of /lib/modules/order, for tests that load them:
// storage of other kinds, and what an attacker would load.
var spare = []string{"sd_mod", "sg", "scsi_debug", "dm_mod", "md_mod", "binfmt_misc", "dummy"}

// Guest starts an archive with what every guest has: the program that is its init (test/vm/guest, built with Build), and the
// kernel's modules.
func Guest(ctx context.Context, path, init string, k *kernel.Kernel) (*Archive, error) {
	files, err := k.Modules(ctx, modules...)
	if err != nil {
		return nil, err
	}
	spares, err := k.Modules(ctx, spare...)
	if err != nil {
		return nil, err
	}
	a, err := Create(path)
	if err != nil {
		return nil, err
	}
	err = a.File("init", init)
	if err = errors.Join(err, addModules(a, "modules/", files), addModules(a, "lib/modules/", spares)); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func addModules(a *Archive, dir string, files []string) error {
	var order []string
	var err error
	for _, m := range files {
		order = append(order, filepath.Base(m))
		err = errors.Join(err, a.File(dir+filepath.Base(m), m))
	}
	return errors.Join(err, a.Text(dir+"order", strings.Join(order, "\n")))
}

// Build compiles a static program for guests, or with "-c" a package's tests.
func Build(ctx context.Context, out, pkg string, flags ...string) error {
	verb := "build"
	if len(flags) > 0 && flags[0] == "-c" {
		verb = "test"
	}
	args := append([]string{verb, "-trimpath", "-ldflags", "-s -w", "-o", out}, append(flags, pkg)...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64", "GOOS=linux")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	return nil
}
