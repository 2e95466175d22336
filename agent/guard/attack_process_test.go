package guard

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

func processAttacks() []attack {
	const kill, trace, write, perf = "task_kill", "ptrace_access_check", "proc_write", "perf_event_alloc"
	return []attack{
		{name: "kill_term", hook: kill, do: func(s *scene) error { return unix.Kill(s.PID, unix.SIGTERM) }},
		{name: "kill_kill", hook: kill, do: func(s *scene) error { return unix.Kill(s.PID, unix.SIGKILL) }},
		{name: "kill_stop", hook: kill, do: func(s *scene) error { return unix.Kill(s.PID, unix.SIGSTOP) }},
		{name: "kill_quit", hook: kill, do: func(s *scene) error { return unix.Kill(s.PID, unix.SIGQUIT) }},
		{name: "kill_group", hook: kill, do: func(s *scene) error { return unix.Kill(-s.PID, unix.SIGKILL) }},
		{name: "tgkill", hook: kill, do: func(s *scene) error { return unix.Tgkill(s.PID, s.PID, unix.SIGKILL) }},
		{name: "tkill", hook: kill, do: func(s *scene) error { return call(unix.SYS_TKILL, uintptr(s.PID), uintptr(unix.SIGKILL)) }},
		{name: "sigqueue", hook: kill, do: func(s *scene) error {
			var info [128]byte
			*(*int32)(unsafe.Pointer(&info[8])) = -1 // SI_QUEUE
			return call(unix.SYS_RT_SIGQUEUEINFO, uintptr(s.PID), uintptr(unix.SIGKILL), uintptr(unsafe.Pointer(&info[0])))
		}},
		{name: "pidfd_send_signal", hook: kill, do: func(s *scene) error {
			fd, err := unix.PidfdOpen(s.PID, 0)
			if err != nil {
				return err
			}
			return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}},
		{name: "kill_from_user_namespace", hook: kill, do: func(s *scene) error {
			cmd := s.helper("kill_kill")
			same := []syscall.SysProcIDMap{{Size: 1}}
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: same, GidMappings: same}
			return cmd.Run()
		}},
		{name: "fcntl_setsig", hook: "file_send_sigiotask", do: signalByFcntl},
		{name: "bpf_send_signal", hook: "bpf", do: signalByBPF},

		{name: "ptrace_attach", hook: trace, do: func(s *scene) error {
			runtime.LockOSThread()
			if err := syscall.PtraceAttach(s.PID); err != nil {
				return err
			}
			_, err := unix.Wait4(s.PID, nil, unix.WALL, nil)
			return effectUnless(err)
		}},
		{name: "ptrace_seize", hook: trace, do: func(s *scene) error {
			runtime.LockOSThread()
			return effectUnless(call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(s.PID), 0, 0))
		}},
		{name: "ptrace_service_manager", hook: trace, do: func(s *scene) error {
			runtime.LockOSThread()
			return effectUnless(call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(s.Manager), 0, 0))
		}},
		{name: "process_vm_writev", hook: trace, do: func(s *scene) error { return vm(s, unix.ProcessVMWritev) }},
		{name: "process_vm_readv", hook: trace, do: func(s *scene) error { return effectUnless(vm(s, unix.ProcessVMReadv)) }},
		{name: "proc_mem_write", hook: write, do: func(s *scene) error {
			return writeAt(fmt.Sprintf("/proc/%d/mem", s.PID), int64(s.Hello.Address), "other")
		}},
		{name: "proc_mem_read", hook: trace, do: func(s *scene) error {
			f, err := os.Open(fmt.Sprintf("/proc/%d/mem", s.PID))
			if err != nil {
				return err
			}
			b := make([]byte, len(secret))
			if _, err := f.ReadAt(b, int64(s.Hello.Address)); err != nil || string(b) != secret {
				return err
			}
			return errEffect
		}},
		{name: "proc_environ", hook: trace, quiet: true, do: func(s *scene) error { return readEffect(s, "environ", helperVariable) }},
		{name: "proc_maps", hook: trace, quiet: true, do: func(s *scene) error { return readEffect(s, "maps", "[stack]") }},
		{name: "proc_fd_reopen", hook: trace, quiet: true, do: func(s *scene) error {
			return writeAt(fmt.Sprintf("/proc/%d/fd/%d", s.PID, s.Hello.Memory), 0, "other")
		}},
		{name: "proc_root", hook: trace, quiet: true, do: func(s *scene) error {
			_, err := os.Stat(s.proc("root") + "/")
			return effectUnless(err)
		}},
		{name: "proc_syscall", hook: trace, do: func(s *scene) error {
			_, err := os.ReadFile(s.proc("syscall"))
			return effectUnless(err)
		}},
		{name: "perf_count", hook: perf, do: func(s *scene) error {
			_, err := unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: unix.PERF_ATTR_SIZE_VER0, Config: unix.PERF_COUNT_SW_TASK_CLOCK}, s.PID, -1, -1, 0)
			return effectUnless(err)
		}},
		{name: "perf_sigtrap", hook: perf, do: signalByPerf},
		{name: "kcmp", hook: trace, quiet: true, do: func(s *scene) error {
			return effectUnless(call(unix.SYS_KCMP, uintptr(s.PID), uintptr(os.Getpid()), 1 /* KCMP_VM */, 0, 0))
		}},
		{name: "get_robust_list", hook: trace, quiet: true, do: func(s *scene) error {
			var head, size uintptr
			return effectUnless(call(unix.SYS_GET_ROBUST_LIST, uintptr(s.PID), uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&size))))
		}},
		{name: "pidfd_getfd", hook: trace, do: func(s *scene) error {
			fd, err := unix.PidfdOpen(s.PID, 0)
			if err != nil {
				return err
			}
			got, err := unix.PidfdGetfd(fd, s.Hello.FD, 0)
			if err != nil {
				return err
			}
			_, err = unix.Pwrite(got, []byte("through the victim's descriptor"), 0)
			return err
		}},
		{name: "process_madvise", hook: trace, quiet: true, do: func(s *scene) error {
			fd, err := unix.PidfdOpen(s.PID, 0)
			if err != nil {
				return err
			}
			iov := unix.RemoteIovec{Base: uintptr(s.Hello.Address), Len: os.Getpagesize()}
			return effectUnless(call(unix.SYS_PROCESS_MADVISE, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1, 21 /* MADV_PAGEOUT */, 0))
		}},
		{name: "setns_mount", hook: trace, quiet: true, do: func(s *scene) error {
			runtime.LockOSThread()
			fd, err := unix.PidfdOpen(s.PID, 0)
			if err := errors.Join(err, unix.Unshare(unix.CLONE_FS)); err != nil {
				return err
			}
			return effectUnless(unix.Setns(fd, unix.CLONE_NEWNS))
		}},
		{name: "move_pages", hook: "", control: "one node of memory: the kernel moves nothing", do: func(s *scene) error {
			nodes := uint64(1)
			return call(unix.SYS_MIGRATE_PAGES, uintptr(s.PID), 64, uintptr(unsafe.Pointer(&nodes)), uintptr(unsafe.Pointer(&nodes)))
		}},

		{name: "oom_score_adj", hook: write, do: func(s *scene) error { return put(s.proc("oom_score_adj"), "1000") }},
		{name: "oom_score_adj_of_thread", hook: write, do: func(s *scene) error {
			return put(s.proc(fmt.Sprintf("task/%d/oom_score_adj", s.PID)), "1000")
		}},
		{name: "oom_adj", hook: write, do: func(s *scene) error { return put(s.proc("oom_adj"), "15") }},
		{name: "proc_mem_write_by_thread", hook: write, do: func(s *scene) error {
			return writeAt(s.proc(fmt.Sprintf("task/%d/mem", s.PID)), int64(s.Hello.Address), "other")
		}},
		{name: "clear_refs", hook: write, do: func(s *scene) error { return effectUnless(put(s.proc("clear_refs"), "1")) }},
		{name: "coredump_filter", hook: write, do: func(s *scene) error { return put(s.proc("coredump_filter"), "0x7f") }},
		{name: "prlimit_nofile", hook: "task_setrlimit", do: func(s *scene) error { return limit(s, unix.RLIMIT_NOFILE) }},
		{name: "prlimit_cpu", hook: "task_setrlimit", do: func(s *scene) error { return limit(s, unix.RLIMIT_CPU) }},
		{name: "prlimit_nproc", hook: "task_setrlimit", do: func(s *scene) error { return limit(s, unix.RLIMIT_NPROC) }},
		{name: "prlimit_fsize", hook: "task_setrlimit", do: func(s *scene) error { return limit(s, unix.RLIMIT_FSIZE) }},
		{name: "prlimit_core", hook: "task_setrlimit", do: func(s *scene) error { return limit(s, unix.RLIMIT_CORE) }},
		{name: "prlimit_as", hook: "task_setrlimit", do: func(s *scene) error { return limit(s, unix.RLIMIT_AS) }},
		{name: "renice", hook: "task_setnice", do: func(s *scene) error { return unix.Setpriority(unix.PRIO_PROCESS, s.PID, 19) }},
		{name: "renice_group", hook: "task_setnice", do: func(s *scene) error { return unix.Setpriority(unix.PRIO_PGRP, s.PID, 19) }},
		{name: "sched_idle", hook: "task_setscheduler", do: func(s *scene) error {
			var param int32
			return call(unix.SYS_SCHED_SETSCHEDULER, uintptr(s.PID), 5 /* SCHED_IDLE */, uintptr(unsafe.Pointer(&param)))
		}},
		{name: "sched_setattr", hook: "task_setscheduler", do: func(s *scene) error {
			attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH}
			return unix.SchedSetAttr(s.PID, &attr, 0)
		}},
		{name: "affinity", hook: "task_setscheduler", do: func(s *scene) error {
			var set unix.CPUSet
			set.Set(0)
			return unix.SchedSetaffinity(s.PID, &set)
		}},
		{name: "ionice", hook: "task_setioprio", do: func(s *scene) error {
			return call(unix.SYS_IOPRIO_SET, 1 /* IOPRIO_WHO_PROCESS */, uintptr(s.PID), 3<<13 /* idle */)
		}},
	}
}

func (s *scene) proc(name string) string { return fmt.Sprintf("/proc/%d/%s", s.PID, name) }

func call(number uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}

// effectUnless is for attacks whose success is their effect.
func effectUnless(err error) error {
	if err == nil {
		return errEffect
	}
	return err
}

func put(path, text string) error { return os.WriteFile(path, []byte(text), 0) }

func writeAt(path string, at int64, text string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte(text), at)
	return err
}

func readEffect(s *scene, name, want string) error {
	b, err := os.ReadFile(s.proc(name))
	if err == nil && strings.Contains(string(b), want) {
		return errEffect
	}
	return err
}

func vm(s *scene, do func(int, []unix.Iovec, []unix.RemoteIovec, uint) (int, error)) error {
	b := []byte("other")
	local := unix.Iovec{Base: &b[0]}
	local.SetLen(len(b))
	_, err := do(s.PID, []unix.Iovec{local}, []unix.RemoteIovec{{Base: uintptr(s.Hello.Address), Len: len(b)}}, 0)
	return err
}

func limit(s *scene, resource int) error {
	return unix.Prlimit(s.PID, resource, &unix.Rlimit{Cur: 60, Max: 60}, nil)
}

// signalByFcntl has the kernel send a signal of the attacker's choice when a socket becomes readable.
func signalByFcntl(s *scene) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	for _, set := range [][2]int{{unix.F_SETOWN, s.PID}, {unix.F_SETSIG, int(unix.SIGKILL)}, {unix.F_SETFL, unix.O_ASYNC}} {
		if _, err := unix.FcntlInt(uintptr(pair[0]), set[0], set[1]); err != nil {
			return err
		}
	}
	_, err = unix.Write(pair[1], []byte("x"))
	return err
}

// signalByBPF has a BPF program signal the victim from inside its own system calls.
func signalByBPF(s *scene) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.RawTracepoint, License: "GPL", Instructions: asm.Instructions{
		asm.FnGetCurrentPidTgid.Call(),
		asm.RSh.Imm(asm.R0, 32),
		asm.JNE.Imm(asm.R0, int32(s.PID), "out"),
		asm.Mov.Imm(asm.R1, int32(unix.SIGKILL)),
		asm.FnSendSignal.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	}})
	if err != nil {
		return err
	}
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: p})
	if err != nil {
		return err
	}
	time.Sleep(500 * time.Millisecond) //nolint:forbidigo // the victim makes a system call meanwhile
	return l.Close()
}

// signalByPerf has the kernel signal every thread of the victim's when a counter of it overflows.
func signalByPerf(s *scene) error {
	threads, err := os.ReadDir(s.proc("task"))
	if err != nil {
		return err
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		_, err = unix.PerfEventOpen(&unix.PerfEventAttr{
			Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Config: unix.PERF_COUNT_SW_TASK_CLOCK, Sample: 100000,
			Bits: 1<<36 | 1<<37, // remove_on_exec, sigtrap
		}, tid, -1, -1, 0)
		if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended meanwhile
			return err
		}
	}
	pause() // the victim runs meanwhile
	return nil
}
