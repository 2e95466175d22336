package guard

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"bailey/internal/kerneldev"
	"bailey/internal/pathname"
)

// kernelDev returns a file's device number as the kernel has it inside (MKDEV in linux/kdev_t.h).
func kernelDev(path string) (uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("ask for the device of %s: %w", path, err)
	}
	return kerneldev.Of(st.Dev), nil
}

// disksBelow returns the block devices that the filesystems of paths are on, with those that they are made of: partitions'
// disks, and what lies below device mapper and RAID.
func disksBelow(paths []string) ([]uint32, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	seen := map[uint64]bool{}
	for _, path := range paths {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil {
			continue // not there: nothing of it is on a disk
		}
		addDisk(seen, st.Dev)
		if source := sourceOf(string(info), path); source != "" && unix.Stat(source, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
			addDisk(seen, st.Rdev) // btrfs gives files a device of its own
		}
	}
	for _, path := range swaps() {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
			addDisk(seen, st.Rdev)
		}
	}
	var out []uint32
	for dev := range seen {
		out = append(out, kerneldev.Of(dev))
	}
	slices.Sort(out)
	return out, nil
}

// swaps returns where memory, the agent's included, is swapped to.
func swaps() []string {
	text, _ := os.ReadFile("/proc/swaps") // a kernel without swap has no such file
	var out []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 0 && filepath.IsAbs(f[0]) {
			out = append(out, f[0])
		}
	}
	return out
}

// genericsOf returns the character devices through which SCSI commands reach disks.
func genericsOf(disks []uint32) []uint32 {
	var out []uint32
	for _, disk := range disks {
		for _, kind := range []string{"scsi_generic", "bsg"} {
			found, _ := filepath.Glob(sysOf(disk) + "/device/" + kind + "/*/dev") // the pattern is right
			for _, file := range found {
				if dev, ok := readDev(file); ok {
					out = append(out, kerneldev.Of(dev))
				}
			}
		}
	}
	return out
}

// switchesOf returns the files of sysfs that take disks, or what they are connected by, away from the machine.
func switchesOf(disks []uint32) []string {
	var out []string
	for _, disk := range disks {
		dir, err := filepath.EvalSymlinks(sysOf(disk))
		if err != nil {
			continue // gone again: nothing to protect
		}
		for ; strings.HasPrefix(dir, "/sys/devices/"); dir = filepath.Dir(dir) {
			for _, name := range []string{"delete", "state", "remove", "reset", "enable", "delete_controller", "reset_controller", "driver/unbind"} {
				if path, err := filepath.EvalSymlinks(filepath.Join(dir, name)); err == nil && !slices.Contains(out, path) {
					out = append(out, path)
				}
			}
		}
	}
	return out
}

// sysOf returns a disk's directory in sysfs.
func sysOf(disk uint32) string {
	major, minor := kerneldev.Split(disk)
	return fmt.Sprintf("/sys/dev/block/%d:%d", major, minor)
}

// readDev reads a device number as sysfs has it.
func readDev(file string) (uint64, bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false // gone again
	}
	major, minor, ok := strings.Cut(strings.TrimSpace(string(text)), ":")
	a, err1 := strconv.ParseUint(major, 10, 32)
	b, err2 := strconv.ParseUint(minor, 10, 32)
	return unix.Mkdev(uint32(a), uint32(b)), ok && err1 == nil && err2 == nil
}

func addDisk(seen map[uint64]bool, dev uint64) {
	sys := sysOf(kerneldev.Of(dev))
	if seen[dev] || unix.Major(dev) == 0 || unix.Access(sys, unix.F_OK) != nil {
		return
	}
	seen[dev] = true
	below, _ := filepath.Glob(sys + "/slaves/*/dev") // the pattern is right
	if unix.Access(sys+"/partition", unix.F_OK) == nil {
		below = append(below, sys+"/../dev")
	}
	for _, file := range below {
		if dev, ok := readDev(file); ok {
			addDisk(seen, dev)
		}
	}
}

// sourceOf returns the source of the mount that path is in.
func sourceOf(mountinfo, path string) string {
	best, source := "", ""
	for line := range strings.Lines(mountinfo) {
		left, right, ok := strings.Cut(strings.TrimSpace(line), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 2 {
			continue
		}
		point := strings.ReplaceAll(l[4], `\040`, " ")
		if pathname.Below(path, point) && len(point) >= len(best) {
			best, source = point, r[1]
		}
	}
	return source
}
