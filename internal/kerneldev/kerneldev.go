// Package kerneldev converts device numbers between the form that the kernel itself uses, which BPF programs and fdinfo show, and that of
// stat(2). It looks nothing up.
package kerneldev

import "golang.org/x/sys/unix"

const minorBits = 20 // MINORBITS in linux/kdev_t.h

// Of returns the kernel's own number of what stat(2) calls dev.
func Of(dev uint64) uint32 { return unix.Major(dev)<<minorBits | unix.Minor(dev) }

// Stat returns what stat(2) calls the kernel's own number.
func Stat(dev uint32) uint64 { return unix.Mkdev(Split(dev)) }

// Split returns the two parts of the kernel's own number.
func Split(dev uint32) (major, minor uint32) { return dev >> minorBits, dev & (1<<minorBits - 1) }
