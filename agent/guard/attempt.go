package guard

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Hook is what refused or saw an attempt. The numbers are report.h's.
type Hook uint16

// HookCgroupMove is the only hook that sees and cannot refuse.
const HookCgroupMove Hook = 13

var hooks = [...]string{
	"none", "task_kill", "file_send_sigiotask", "ptrace_access_check", "task_setnice", "task_setscheduler", "task_setioprio", "task_setrlimit",
	"task_movememory", "proc_write", "sysctl", "sysrq", "cgroup_write", "cgroup_attach_task", "disk_write", "file_open", "file_ioctl",
	"inode_create", "inode_link", "inode_unlink", "inode_symlink", "inode_mkdir", "inode_rmdir", "inode_mknod", "inode_rename", "inode_setattr",
	"inode_setxattr", "inode_removexattr", "inode_set_acl", "sb_mount", "sb_remount", "sb_umount", "move_mount", "sb_pivotroot", "bpf", "bpf_map",
	"locked_down", "kexec", "path_notify", "unit", "perf_event_alloc",
}

// String returns the hook's name: the kernel's, or what is done where one of the kernel's hooks sees many things.
func (h Hook) String() string {
	if int(h) < len(hooks) {
		return hooks[h]
	}
	return fmt.Sprintf("hook_%d", uint16(h))
}

// Attempt is one thing that was tried against what is protected.
type Attempt struct {
	Time    uint64 // nanoseconds since boot
	Hook    Hook
	Refused bool // false: it was only seen, and has happened
	Undone  bool // it has happened and was undone

	PID, Thread, UID uint32 // of the culprit
	Start            uint64 // of the culprit's process, nanoseconds since boot
	Comm             string

	Target      uint32 // the process that it was done to, 0 if it was not done to one
	TargetStart uint64
	Name        string // of the file that it was done to, without directories
	Dev         uint32 // the file's
	Ino         uint64

	Detail     uint64 // a signal, a request, a mode: by the hook
	Suppressed uint64 // like this one, by the same process, since the last that was reported
}

const attemptSize = 152

// decodeAttempt reads struct attempt of report.h.
func decodeAttempt(b []byte) (Attempt, error) {
	if len(b) < attemptSize {
		return Attempt{}, fmt.Errorf("read an attempt: %d bytes, %d expected", len(b), attemptSize)
	}
	u32, u64 := binary.NativeEndian.Uint32, binary.NativeEndian.Uint64
	return Attempt{
		Time: u64(b), Start: u64(b[8:]), TargetStart: u64(b[16:]), Ino: u64(b[24:]), Detail: u64(b[32:]), Suppressed: u64(b[40:]),
		PID: u32(b[48:]), Thread: u32(b[52:]), UID: u32(b[56:]), Target: u32(b[60:]), Dev: u32(b[64:]),
		Hook: Hook(binary.NativeEndian.Uint16(b[68:])), Refused: b[70] != 0, Comm: unix.ByteSliceToString(b[72:88]), Name: unix.ByteSliceToString(b[88:152]),
	}, nil
}

// Tally is how often a hook refused, or saw, since the guard was loaded.
type Tally struct {
	Hook    Hook
	Refused uint64
	Lost    uint64 // attempts that could not be reported because nobody read them in time
}

// Tallies returns the hooks that refused anything.
func (g *Guard) Tallies() ([]Tally, error) {
	var out []Tally
	for h := range hooks {
		var t guardTally
		if err := g.kernel.Maps[mapTallies].Lookup(uint32(h), &t); err != nil {
			return nil, fmt.Errorf("read what was refused: %w", err)
		}
		if t.Refused > 0 {
			out = append(out, Tally{Hook: Hook(h), Refused: t.Refused, Lost: t.Lost})
		}
	}
	return out, nil
}
