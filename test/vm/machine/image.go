package machine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"bailey/test/vm/cache"
)

// recipe is the root file system: Debian's minimal system with what a server has, a serial console that nobody logs in on, and
// without timers. Another recipe is another image.
var recipe = []string{
	"--mode=root", "--variant=minbase", "--dpkgopt=force-unsafe-io",
	"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
	"--include=systemd-sysv,udev,dbus,kmod,procps,psmisc,e2fsprogs,mount,login,iproute2",
	`--customize-hook=systemctl --root="$1" mask getty@tty1.service serial-getty@ttyS0.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer`,
	`--customize-hook=echo guest >"$1/etc/hostname"; echo 0123456789abcdef0123456789abcdef >"$1/etc/machine-id"; mkdir -p "$1/var/log/journal"`,
	"bookworm",
}

const imageSize = "2G" // sparse

// rootImage returns the image of the recipe, from the cache in dir or made.
func rootImage(ctx context.Context, dir string) (string, error) {
	hash := sha256.Sum256([]byte(strings.Join(recipe, "\x00") + imageSize))
	image := filepath.Join(dir, fmt.Sprintf("debian12-%x.ext4", hash[:6]))
	return image, cache.Once(image, func(unfinished string) error {
		if os.Geteuid() != 0 {
			return errors.New("needs root once: makes the file system of the test machines")
		}
		fmt.Fprintln(os.Stderr, "vm: making the file system of the test machines (a minute or two, once)")
		tree := unfinished + ".d"
		defer func() { _ = os.RemoveAll(tree) }()
		if err := command(ctx, "mmdebstrap", append(recipe, tree, "deb http://deb.debian.org/debian bookworm main", "deb http://deb.debian.org/debian-security bookworm-security main")...); err != nil {
			return err
		}
		return command(ctx, "mkfs.ext4", "-q", "-F", "-L", "root", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-d", tree, unfinished, imageSize)
	})
}

// command runs a program whose mounts are its own.
func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}
