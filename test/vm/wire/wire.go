// Package wire is what a host and its guest agree on: words on the kernel's command line and the commands that the host gives to a
// running system over the second serial port. It does nothing.
//
// Invariant: one line of JSON each way for each command, in order.
package wire

// BootDisk on the kernel's command line makes the guest's init start the system on /dev/vda.
const BootDisk = "vm.disk"

// Inject is the directory of the initramfs whose files are laid over that system first.
const Inject = "inject"

// Hand is the argument with which the same program serves the host in that system; HandPath is where it is there.
const (
	Hand     = "hand"
	HandPath = "usr/local/sbin/vm-hand"
)

// Hello is the guest's first line.
type Hello struct {
	Boot string // the kernel's boot ID
}

// Request is a command for /bin/sh.
type Request struct {
	Command string
	Limit   float64 // seconds
}

// Killed is the exit status of a command that was killed, at its limit or by a signal.
const Killed = -1

// Reply is how it ended.
type Reply struct {
	Output []byte // both streams
	Code   int
}
