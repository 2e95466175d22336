// Package boottime reads the one clock that all of Bailey's events are stamped with: nanoseconds since boot, suspended time
// included (CLOCK_BOOTTIME), the same clock as the kernel's start time of a process. It is not wall-clock time and must not
// be shown to people without conversion.
//
// Invariant: values never go back and are comparable between all processes of one boot that share a time namespace.
package boottime

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ticksPerSecond is USER_HZ, the unit of times in /proc/PID/stat: 100 on every architecture that Go runs Linux on.
const ticksPerSecond = 100

const (
	nanosPerSecond = 1_000_000_000
	nanosPerTick   = nanosPerSecond / ticksPerSecond
)

// Now returns the nanoseconds since boot. It neither allocates nor blocks. Safe for concurrent use.
func Now() uint64 {
	var ts unix.Timespec
	// A raw system call: reading a clock cannot block, so the scheduler need not be told. It cannot fail with a valid
	// pointer on any kernel that Bailey supports.
	_, _, _ = unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0)
	return uint64(ts.Nano())
}

// Zero is when this boot began by the clock on the wall as it goes now: the wall-clock time of boot time 0. It has no monotonic part,
// so that two of them tell by how much the wall clock was set between.
func Zero() time.Time { return time.Unix(0, time.Now().UnixNano()-int64(Now())) }

// FromTicks converts a time in clock ticks, such as starttime in /proc/PID/stat, to nanoseconds since boot. The kernel
// rounded it down to 10 ms.
func FromTicks(ticks uint64) uint64 { return ticks * nanosPerTick }

// ToTicks rounds a time down to the clock ticks that /proc/PID/stat would show for it.
func ToTicks(nanos uint64) uint64 { return nanos / nanosPerTick }
