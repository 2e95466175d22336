package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// starveAttacks take away what everybody on the machine lives on.
func starveAttacks() []attack {
	return []attack{
		{name: "threads_max", possible: "operators set it, and no LSM hook sees the value: an agent that needs a thread ends, the guard holds, and the service manager starts it again",
			do: func(*scene) error {
				return withSetting("kernel/threads-max", "20", func() error {
					pause() // the victim needs a thread
					return nil
				})
			}},
		{name: "pid_max", possible: "as above: nobody gets a new process or thread while all numbers are taken", do: func(*scene) error {
			return withSetting("kernel/pid_max", "301", fillPIDs)
		}},
		{name: "file_max", possible: "as above: agent and keeper have CAP_SYS_ADMIN, which is exempt; products get no descriptor, and their defaults count", do: func(*scene) error {
			return withSetting("fs/file-max", "100", func() error { return errEffect })
		}},
		{name: "overcommit", possible: "as above: nobody gets new memory", do: func(*scene) error {
			return withSetting("vm/overcommit_memory", "2", func() error { return errEffect })
		}},
		{name: "disk_full", possible: "who may write to the filesystem may fill it: give the state a filesystem of its own", do: func(s *scene) error {
			f, err := os.Create(s.Elsewhere + "/full")
			if err != nil {
				return err
			}
			defer os.Remove(f.Name()) //nolint:errcheck // of the attacker
			defer f.Close()
			for block := make([]byte, 1<<16); ; {
				if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
					return errEffect
				} else if err != nil {
					return err
				}
			}
		}},
		{name: "network_down", possible: "the network is the operator's; the control socket and the products' are unix sockets and go on", do: func(*scene) error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			if err != nil {
				return err
			}
			r, err := unix.NewIfreq("lo")
			if err != nil {
				return err
			}
			r.SetUint16(0)
			if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
				return err
			}
			r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
			return effectUnless(unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r))
		}},
		{name: "swap_to_own_disk", possible: "no LSM hook; what the kernel swaps out of the agent's memory can be read and changed there", do: swapToOwnDisk},
	}
}

// pause is long enough for the victim to notice that something is missing.
func pause() { time.Sleep(1500 * time.Millisecond) } //nolint:forbidigo // the victim does something now and then

// withSetting does something while a setting of the kernel is another.
func withSetting(name, value string, do func() error) error {
	path := "/proc/sys/" + name
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	spareThreads()
	if err := put(path, value); err != nil {
		return err
	}
	return errors.Join(do(), os.WriteFile(path, old, 0))
}

// settings are what attacks set for a while, so that one which is ended half-way leaves a machine.
func settings() map[string]string {
	out := map[string]string{}
	for _, name := range []string{"kernel/threads-max", "kernel/pid_max", "fs/file-max", "vm/overcommit_memory", "kernel/modprobe", "kernel/core_pattern"} {
		text, err := os.ReadFile("/proc/sys/" + name)
		if err == nil {
			out[name] = string(text)
		}
	}
	return out
}

func restore(old map[string]string) error {
	var errs []error
	for name, now := range settings() {
		if now != old[name] {
			errs = append(errs, put("/proc/sys/"+name, old[name]))
		}
	}
	return errors.Join(errs...)
}

// spareThreads has the runtime make threads now that it would need later.
func spareThreads() {
	var all sync.WaitGroup
	for range 24 {
		all.Go(func() { _ = unix.Nanosleep(&unix.Timespec{Nsec: 50e6}, nil) })
	}
	all.Wait()
}

// fillPIDs starts processes until there is no number for another, and takes for some seconds what becomes free: the victim's spare threads end one
// after the other. Where the numbers have come round once, the kernel gives out none below 300.
func fillPIDs() error {
	var all []*exec.Cmd
	defer func() {
		for _, cmd := range all {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	for until := time.Now().Add(5 * time.Second); time.Now().Before(until); {
		cmd := exec.Command("sleep", "20") // longer than this takes; an attacker that is ended leaves nothing for long
		if err := cmd.Start(); errors.Is(err, unix.EAGAIN) {
			_ = unix.Nanosleep(&unix.Timespec{Nsec: 20e6}, nil)
			continue
		} else if err != nil {
			return err
		}
		all = append(all, cmd)
	}
	return nil
}

// swapToOwnDisk has the kernel swap to a device of the attacker's.
func swapToOwnDisk(s *scene) error {
	image, err := os.Create(s.Root + "/swap")
	if err != nil {
		return err
	}
	defer image.Close()
	const pages = 64
	head := make([]byte, pages*4096)
	binary.NativeEndian.PutUint32(head[1024:], 1)       // version
	binary.NativeEndian.PutUint32(head[1028:], pages-1) // last page
	copy(head[4086:], "SWAPSPACE2")
	if _, err := image.Write(head); err != nil {
		return err
	}
	dev, err := attachLoop(image)
	if err != nil {
		return err
	}
	defer dev.Close()
	name := append([]byte(dev.Name()), 0)
	if err := call(unix.SYS_SWAPON, uintptr(unsafe.Pointer(&name[0])), 0); err != nil {
		return fmt.Errorf("swapon: %w", err)
	}
	return effectUnless(call(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(&name[0]))))
}
