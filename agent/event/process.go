package event

import "fmt"

// ProcessKey names one process for the machine's uptime: a pid alone is reused, a pid with its start time is not.
type ProcessKey struct {
	PID   uint32 // thread group id, as seen in the agent's pid namespace
	Start uint64 // nanoseconds since boot (CLOCK_BOOTTIME); rounded down to 10 ms where only /proc could be asked
}

// String returns "PID@START", the form the command line accepts.
func (k ProcessKey) String() string { return fmt.Sprintf("%d@%d", k.PID, k.Start) }

// File is the identity of one file as it was when the event happened.
type File struct {
	Path  string // as seen from the agent's mount namespace; empty when unknown; " (deleted)" is cut and Deleted set
	Dev   uint64 // st_dev
	Ino   uint64
	CTime int64 // nanoseconds since the epoch
	MTime int64 // nanoseconds since the epoch
	Size  int64 // bytes
	Mode  uint32
	UID   uint32
	GID   uint32

	Deleted bool // the name was already gone
}

// Credentials are a process's user and group ids in the initial user namespace, and its effective capabilities.
type Credentials struct {
	UID, EUID, SUID, FSUID uint32
	GID, EGID, SGID, FSGID uint32
	CapEffective           uint64
}

// Process is what is known of one process at one moment. It is immutable: an exec or a change of credentials makes a new
// one. Safe for concurrent use because nobody writes it.
type Process struct {
	Key         ProcessKey
	Parent      ProcessKey // the parent at the time; zero for pid 1 and kernel threads' ancestor
	Comm        string     // ≤ 15 bytes
	Executable  File
	Credentials Credentials
	CgroupID    uint64 // id of the v2 cgroup, 0 where there is none
	Cgroup      string // path below the cgroup root, e.g. /system.slice/ssh.service; empty when unknown
	ContainerID string // 64 hex digits (or the runtime's own form) cut from the cgroup path; empty outside containers
	Kernel      bool   // a kernel thread

	MountNamespace uint64 // inode of its mount namespace, as stat(2) of /proc/PID/ns/mnt shows it; 0 when unknown
}
