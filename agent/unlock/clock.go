package unlock

import (
	"time"

	"golang.org/x/sys/unix"
)

// maxSkew is how far the clocks of two machines that are both synchronised may differ.
const maxSkew = 5 * time.Minute

// floor is a time that is known to have passed.
type floor struct {
	at   time.Time // zero: none is known
	boot uint64    // when it was: nanoseconds since boot
}

// now is the floor by a clock that nobody can set.
func (f floor) now(boot uint64) time.Time {
	if f.at.IsZero() {
		return f.at
	}
	return f.at.Add(time.Duration(boot - min(f.boot, boot)))
}

// raised returns a floor that is not below t.
func (f floor) raised(t time.Time, boot uint64) floor {
	if t.After(f.now(boot)) {
		return floor{at: t, boot: boot}
	}
	return f
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Synchronised reports whether the kernel says that the wall clock follows another one: what chronyd, ntpd and
// systemd-timesyncd tell it (adjtimex(2), STA_UNSYNC). A machine that just started does not, however its clock stands.
func Synchronised() bool {
	var t unix.Timex
	_, err := unix.Adjtimex(&t)
	return err == nil && t.Status&unix.STA_UNSYNC == 0
}
