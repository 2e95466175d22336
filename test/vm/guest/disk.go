package main

import (
	"fmt"
	"os"

	"bailey/test/vm/wire"

	"golang.org/x/sys/unix"
)

const diskDevice = "/dev/vda"

// bootDisk becomes the system on the disk.
func bootDisk() error {
	if err := loadModules(); err != nil {
		return err
	}
	if err := mount(diskDevice, "/new", "ext4", ""); err != nil {
		return err
	}
	if _, err := os.Stat("/" + wire.Inject); err == nil {
		if err := copyTree("/"+wire.Inject, "/new"); err != nil {
			return fmt.Errorf("lay files over the disk: %w", err)
		}
		unix.Sync() // they are not what a power cut is to take
	}
	if err := becomeRoot("/new"); err != nil {
		return fmt.Errorf("move to the disk: %w", err)
	}
	if port, err := os.OpenFile("/dev/port", os.O_WRONLY, 0); err == nil {
		beat(port) // the next is the hand's
	}
	return unix.Exec("/sbin/init", []string{"/sbin/init"}, []string{"TERM=linux"})
}

// kernelCommandLine returns it before anything is mounted.
func kernelCommandLine() (string, error) {
	if err := mount("proc", "/proc", "proc", ""); err != nil {
		return "", err
	}
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	return string(text), unix.Unmount("/proc", 0)
}
