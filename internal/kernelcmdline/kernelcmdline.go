// Package kernelcmdline reads what this machine was booted with. It knows no parameter and changes nothing.
//
// Invariant: Read returns what the boot loader gave the kernel, whatever root has mounted over /proc or over files in it since:
// only who has the console, or can change the boot loader's files and reboot, decides about it.
package kernelcmdline

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLength bounds what is read; no architecture's kernel takes more than a page or two.
const maxLength = 64 << 10

// Read returns the command line from a procfs of its own, which nobody else can mount anything over. It needs root.
func Read() (string, error) {
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("open a proc file system: %w", err)
	}
	defer func() { _ = unix.Close(fs) }()
	if err := unix.FsconfigCreate(fs); err != nil {
		return "", fmt.Errorf("make a proc file system: %w", err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return "", fmt.Errorf("mount a proc file system: %w", err)
	}
	defer func() { _ = unix.Close(root) }()
	fd, err := unix.Openat(root, "cmdline", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", fmt.Errorf("open the kernel's command line: %w", err)
	}
	f := os.NewFile(uintptr(fd), "cmdline")
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxLength+1))
	if err == nil && len(text) > maxLength {
		err = errors.New("it is too long")
	}
	if err != nil {
		return "", fmt.Errorf("read the kernel's command line: %w", err)
	}
	return strings.TrimRight(string(text), "\n"), nil
}

// Has reports whether a parameter stands in a command line, as NAME or NAME=VALUE. As the kernel does, it takes double quotes
// for what keeps spaces together, and does not look behind a word that is "--": what follows there is for init.
func Has(cmdline, parameter string) bool {
	for _, w := range words(cmdline) {
		if w == "--" {
			return false
		}
		if w == parameter {
			return true
		}
	}
	return false
}

// words cuts a command line at its spaces, and takes the quotes away.
func words(cmdline string) []string {
	var out []string
	var w strings.Builder
	quoted, any := false, false
	for _, r := range cmdline {
		switch {
		case r == '"':
			quoted, any = !quoted, true
		case !quoted && (r == ' ' || r == '\t' || r == '\n'):
			if any {
				out = append(out, w.String())
			}
			w.Reset()
			any = false
		default:
			w.WriteRune(r)
			any = true
		}
	}
	if any {
		out = append(out, w.String())
	}
	return out
}
