package contain

import (
	"fmt"
	"math"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// exitFailed is the helper's exit status when the product never ran.
const exitFailed = 125

// Main is the whole life of a helper process; the hidden `contain` command runs it with SpecFD and exits with its result.
// It must be called on the main goroutine of a process that Start made; anywhere else it reports a broken spec.
func Main(specFD int) int {
	runtime.LockOSThread() // namespaces, credentials and filters below belong to the thread
	for i := range 4 {
		unix.CloseOnExec(specFD + i)
	}
	st := status{os.NewFile(uintptr(specFD+1), "status")}
	if st.f == nil {
		fmt.Fprintln(os.Stderr, "contain: this command is started by the agent only")
		return exitFailed
	}
	spec, err := readSpec(specFD)
	if err == nil && spec.Stage == "init" {
		return runInit(spec, st, specFD)
	}
	if err == nil {
		err = becomeInit(spec, st, specFD)
	}
	fmt.Fprintln(os.Stderr, "contain:", err)
	st.send(message{Error: err.Error()})
	return exitFailed
}

// becomeInit does everything that needs privilege, gives it up, and replaces this process by the product's pid 1. It
// returns only on failure.
func becomeInit(s *Spec, st status, specFD int) error {
	if os.Getpid() != 1 || s.Stage != "root" {
		return fmt.Errorf("start containment: not in a new pid namespace")
	}
	self, err := unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open own program: %w", err)
	}
	steps := []func() error{
		func() error { return isolate(s, st) },
		func() error { return buildRoot(s, st) },
		func() error { return giveWay(s) },
		func() error { return closeOthers(specFD + 4) },
		func() error { return limitResources(s) },
		func() error { return dropPrivileges(s.UID, s.Outlive) },
		func() error { return restrictFiles(s, self, st) },
		filterSyscalls,
		func() error { return execInit(s, self, specFD) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// isolate finishes what the clone began.
func isolate(s *Spec, st status) error {
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		st.note("cgroup_namespace", fmt.Sprintf("no control group namespace (%v): a product can read its control group's path", err), "none needed; newer kernels have it")
	}
	if err := unix.Sethostname([]byte(s.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if s.Network {
		return nil
	}
	return loopbackUp()
}

// loopbackUp makes 127.0.0.1 work inside the product's own, otherwise empty network.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	return nil
}

// giveWay makes this process, and what it executes and starts, wait for everybody else.
func giveWay(s *Spec) error {
	if !s.Idle {
		return nil
	}
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0); err != nil {
		return fmt.Errorf("lower the priority: %w", err)
	}
	const whoProcess, classIdle = 1, 3 << 13 // linux/ioprio.h
	if _, _, e := unix.RawSyscall(unix.SYS_IOPRIO_SET, whoProcess, 0, classIdle); e != 0 {
		return fmt.Errorf("lower the priority of input and output: %w", e)
	}
	return nil
}

// closeOthers marks every descriptor that is not the helper's own to be closed at the exec.
func closeOthers(from int) error {
	if err := unix.CloseRange(uint(from), math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close other descriptors: %w", err)
	}
	return nil
}
