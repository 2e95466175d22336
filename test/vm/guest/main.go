// Command guest is /init of a virtual machine. In an initramfs that has tests it makes a usable system, runs them as root and
// reports on the second serial port; where the machine has a disk it starts the system that is there, in which it is then the
// host's hand. It is no shell and starts nothing else.
//
// Invariant: with tests it ends by itself with one line "VM-EXIT CODE" on the serial port, or the kernel has failed.
package main

import (
	"fmt"
	"os"
	"strings"

	"bailey/test/vm/wire"

	"golang.org/x/sys/unix"
)

func main() {
	switch {
	case os.Getpid() == 1:
		boot()
	case len(os.Args) > 1 && os.Args[1] == wire.Hand:
		go pulse()
		fmt.Fprintln(os.Stderr, "hand:", serve()) // returns only with an error
		os.Exit(1)
	default:
		os.Exit(runAll(os.Stdout))
	}
}

// boot is process 1.
func boot() {
	if line, _ := kernelCommandLine(); strings.Contains(line, wire.BootDisk) {
		fmt.Println("guest: boot the disk:", bootDisk()) // returns only with an error
		exit(1)
	}
	code := 1
	if err := prepare(); err != nil {
		fmt.Println("guest: " + err.Error())
	} else if report, err := openReport(); err != nil {
		fmt.Println("guest: " + err.Error())
	} else {
		go pulse()
		modules, _ := os.ReadFile("/sys/kernel/security/lsm")
		fmt.Fprintf(report, "VM-LSM %s\n", modules)
		code = reap(report)
		fmt.Fprintf(report, "VM-EXIT %d\n", code)
		_ = unix.IoctlSetInt(int(report.Fd()), unix.TCSBRK, 1) // until all of it is sent: exit is at once
	}
	exit(code)
}

// reap runs the tests in a child and meanwhile does what tests expect of process 1: it buries orphans.
func reap(report *os.File) int {
	child, err := os.StartProcess("/proc/self/exe", []string{"guest"}, &os.ProcAttr{Files: []*os.File{nil, report, report}})
	if err != nil {
		fmt.Fprintln(report, err)
		return 1
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if pid == child.Pid {
			return status.ExitStatus()
		}
		if err != nil && err != unix.EINTR {
			fmt.Fprintln(report, err)
			return 1
		}
	}
}
