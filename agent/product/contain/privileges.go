package contain

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// oomScoreAdj makes a product the first to die when the whole machine is short of memory.
const oomScoreAdj = "900"

// Bits of the securebits that x/sys does not name (linux/securebits.h): no capabilities from uid 0, none kept, none
// ambient, each locked for ever.
const securebits = 1<<0 | 1<<1 | 1<<3 | 1<<5 | 1<<6 | 1<<7

// limitResources sets what rlimits can bound; the control group bounds the rest.
func limitResources(s *Spec) error {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(oomScoreAdj), 0); err != nil {
		return fmt.Errorf("set oom_score_adj: %w", err)
	}
	// The agent is scheduled before others; its products are not.
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 0); err != nil {
		return fmt.Errorf("take the ordinary priority: %w", err)
	}
	for _, l := range []struct {
		name     string
		resource int
		value    uint64
	}{
		{"nofile", unix.RLIMIT_NOFILE, uint64(s.Files)},
		{"nproc", unix.RLIMIT_NPROC, uint64(s.Pids)},
		{"fsize", unix.RLIMIT_FSIZE, uint64(s.FileBytes)},
		{"core", unix.RLIMIT_CORE, 0},
		{"memlock", unix.RLIMIT_MEMLOCK, 64 << 10},
		{"msgqueue", unix.RLIMIT_MSGQUEUE, 0},
		{"rtprio", unix.RLIMIT_RTPRIO, 0},
		{"nice", unix.RLIMIT_NICE, 0},
	} {
		if err := unix.Prlimit(0, l.resource, &unix.Rlimit{Cur: l.value, Max: l.value}, nil); err != nil {
			return fmt.Errorf("limit %s: %w", l.name, err)
		}
	}
	unix.Umask(0o022)
	return nil
}

// dropPrivileges gives up root for good. It acts on this thread alone, which is the one that executes what follows.
func dropPrivileges(uid uint32, outlive bool) error {
	if uid == 0 {
		return fmt.Errorf("drop privileges: a product must not run as root")
	}
	for c := uintptr(0); ; c++ {
		if _, _, e := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0); e == unix.EINVAL {
			break // the first number that is no capability of this kernel
		} else if e != 0 {
			return fmt.Errorf("drop capability %d: %w", c, e)
		}
	}
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, securebits, 0, 0, 0); err != nil {
		return fmt.Errorf("lock securebits: %w", err)
	}
	id := uintptr(uid)
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
		return fmt.Errorf("drop groups: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, id, id, id); e != 0 {
		return fmt.Errorf("change group: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id); e != 0 {
		return fmt.Errorf("change user: %w", e)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&hdr, &none[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if outlive {
		return nil // the pipe alone ends it
	}
	// A change of user clears it, so it is set here; whether the agent is still there is seen by the pipe to it.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("die with the agent: %w", err)
	}
	return nil
}
