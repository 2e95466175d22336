package contain

import "golang.org/x/sys/unix"

const (
	auditArch  = unix.AUDIT_ARCH_AARCH64
	foreignBit = 0 // 32-bit programs come with an architecture of their own
)

// deniedArch exists on this architecture alone.
var deniedArch = []int{unix.SYS_LOOKUP_DCOOKIE}
