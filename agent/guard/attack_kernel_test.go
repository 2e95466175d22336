package guard

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"bailey/internal/bpflsm"
)

func kernelAttacks() []attack {
	const unlink, load, lock = "inode_unlink", "bpf", "locked_down"
	return []attack{
		{name: "unlink_pins", hook: unlink, do: func(s *scene) error { return os.RemoveAll(s.Pins) }},
		{name: "rename_pins", hook: "inode_rename", do: func(s *scene) error { return os.Rename(s.Pins, s.Pins+"-old") }},
		{name: "pin_among_pins", hook: "inode_create", do: func(s *scene) error {
			m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
			if err != nil {
				return err
			}
			return m.Pin(s.Pins + "/mine")
		}},
		{name: "map_by_pin", hook: "bpf_map", do: func(s *scene) error {
			found, err := filepath.Glob(s.Pins + "/*/" + bpflsm.MapPin("devices"))
			if err != nil || len(found) == 0 {
				return errors.Join(err, errors.New("no pin"))
			}
			m, err := ebpf.LoadPinnedMap(found[0], nil)
			if err != nil {
				return err
			}
			return effectUnless(m.Put(uint32(1<<30), uint32(1)))
		}},
		{name: "map_by_id", hook: "bpf_map", do: func(s *scene) error {
			for id := ebpf.MapID(0); ; {
				next, err := ebpf.MapGetNextID(id)
				if err != nil {
					return fmt.Errorf("no map could be written: %w", err)
				}
				id = next
				if m, err := ebpf.NewMapFromID(id); err == nil && m.KeySize() == 4 && m.ValueSize() == 4 && m.Put(uint32(1<<30), uint32(1)) == nil {
					return errEffect
				}
			}
		}},
		{name: "own_lsm_program", hook: load, do: func(s *scene) error { return loadProgram(ebpf.LSM, ebpf.AttachLSMMac, "file_open") }},
		{name: "own_fmod_ret", hook: load, do: func(s *scene) error {
			return loadProgram(ebpf.Tracing, ebpf.AttachModifyReturn, "security_file_open")
		}},
		{name: "own_fentry", hook: load, do: func(s *scene) error {
			return loadProgram(ebpf.Tracing, ebpf.AttachTraceFEntry, "security_file_open")
		}},
		{name: "own_kprobe", hook: load, do: func(s *scene) error { return loadProgram(ebpf.Kprobe, 0, "") }},
		{name: "own_perf_event", hook: load, do: func(s *scene) error { return loadProgram(ebpf.PerfEvent, 0, "") }},
		{name: "ftrace_enabled", hook: "sysctl", do: func(s *scene) error { return put("/proc/sys/kernel/ftrace_enabled", "0") }},
		{name: "ftrace_enabled_by_bind_mount", hook: "sysctl", do: func(s *scene) error {
			return inNamespace(func() error {
				if err := unix.Mount("/proc/sys/kernel/ftrace_enabled", s.Elsewhere+"/file", "", unix.MS_BIND, ""); err != nil {
					return err
				}
				return put(s.Elsewhere+"/file", "0")
			})
		}},
		{name: "sysrq_trigger", hook: "sysrq", do: func(s *scene) error { return effectUnless(openAnd("/proc/sysrq-trigger", os.O_WRONLY, "h")) }},
		{name: "dev_mem", hook: lock, do: func(s *scene) error { return effectUnless(openAnd("/dev/mem", os.O_RDWR, "")) }},
		{name: "dev_port", hook: lock, do: func(s *scene) error { return effectUnless(openAnd("/dev/port", os.O_RDWR, "")) }},
		{name: "ioperm", hook: lock, do: func(s *scene) error { return effectUnless(call(173 /* ioperm of x86-64 */, 0x80, 1, 1)) }},
		{name: "kexec_load", hook: "kexec", do: func(s *scene) error {
			return effectUnless(call(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0x3e0000 /* x86-64 */))
		}},
		{name: "adjtimex", possible: "NTP needs the same call; nothing here expires by the wall clock", do: func(s *scene) error {
			_, err := unix.Adjtimex(&unix.Timex{Modes: 0x100 /* ADJ_SETOFFSET */, Time: unix.Timeval{Sec: 5}})
			return effectUnless(err)
		}},
		{name: "unsigned_module", hook: lock, do: func(*scene) error {
			module, err := os.ReadFile("/lib/modules/" + unsignedModule)
			if err != nil {
				return err
			}
			const signed = "~Module signature appended~\n"
			module, ok := bytes.CutSuffix(module, []byte(signed))
			if !ok {
				return errors.New("the module was not signed")
			}
			parameters := []byte{0}
			if err := call(unix.SYS_INIT_MODULE, uintptr(unsafe.Pointer(&module[0])), uintptr(len(module)), uintptr(unsafe.Pointer(&parameters[0]))); err != nil {
				return err
			}
			return effectUnless(unix.DeleteModule("dummy", 0))
		}},
		{name: "uprobe", possible: "without a BPF program, which is refused, it only counts", do: func(s *scene) error {
			const file = "/sys/kernel/tracing/uprobe_events"
			exe, err := os.Readlink("/proc/self/exe")
			if err != nil {
				return err
			}
			if err := openAnd(file, os.O_WRONLY|os.O_APPEND, "p:bailey/x "+exe+":0x1000\n"); err != nil {
				return err
			}
			return errors.Join(errEffect, openAnd(file, os.O_WRONLY|os.O_APPEND, "-:bailey/x\n"))
		}},
	}
}

// unsignedModule is loaded by nobody but an attacker.
const unsignedModule = "dummy.ko"

func loadProgram(kind ebpf.ProgramType, attach ebpf.AttachType, to string) error {
	_, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: kind, AttachType: attach, AttachTo: to, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	return effectUnless(err)
}

// trustAttacks try to become trusted by executing the trusted program, whose arguments the attacker chooses.
func trustAttacks() []attack {
	const open = "file_open"
	return []attack{
		{name: "execute_the_program", hook: open, do: func(s *scene) error { return s.helper("taste").Run() }},
		{name: "execute_the_program_in_the_services_cgroup", hook: open, do: func(s *scene) error {
			group, err := os.Open(s.Cgroup)
			if err != nil {
				return err
			}
			cmd := s.helper("taste")
			cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
			return cmd.Run()
		}},
		{name: "execute_a_copy_of_the_program", hook: open, do: func(s *scene) error {
			program, err := os.ReadFile(exe())
			if err != nil {
				return err
			}
			path := "/tmp/copy"
			if err := os.WriteFile(path, program, 0o700); err != nil {
				return err
			}
			defer os.Remove(path) //nolint:errcheck // of the attacker
			group, err := os.Open(s.Cgroup)
			if err != nil {
				return err
			}
			defer group.Close()
			cmd := exec.Command(path)
			cmd.Env = s.helper("taste").Env
			cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
			return cmd.Run()
		}},
		{name: "execute_the_program_traced", hook: open, do: func(s *scene) error {
			cmd := s.helper("taste")
			cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
			runtime.LockOSThread() // the tracer is a thread
			if err := cmd.Start(); err != nil {
				return err
			}
			if _, err := syscall.Wait4(cmd.Process.Pid, nil, 0, nil); err != nil { // it has executed and waits
				return err
			}
			return errors.Join(syscall.PtraceDetach(cmd.Process.Pid), cmd.Wait())
		}},
		{name: "execute_the_program_by_modprobe", hook: open, do: func(s *scene) error {
			script, err := s.tasteScript()
			if err != nil {
				return err
			}
			return withSetting("kernel/modprobe", script, func() error {
				_ = unix.Mount("x", s.Elsewhere, "nosuchfilesystem", 0, "") // the kernel looks for its module
				return nil
			})
		}},
		{name: "execute_the_program_by_core_pattern", hook: open, do: func(s *scene) error {
			script, err := s.tasteScript()
			if err != nil {
				return err
			}
			return withSetting("kernel/core_pattern", "|"+script, func() error {
				_ = exec.Command("/bin/sh", "-c", "kill -SEGV $$").Run()
				pause() // the kernel does not wait for it
				return nil
			})
		}},
		{name: "execute_the_program_by_release_agent", hook: open, do: func(s *scene) error {
			script, err := s.tasteScript()
			if err != nil {
				return err
			}
			const dir = "/tmp/released"
			if err := errors.Join(os.MkdirAll(dir, 0o755), unix.Mount("cgroup", dir, "cgroup", 0, "none,name=attack")); err != nil {
				return err
			}
			defer unix.Unmount(dir, unix.MNT_DETACH) //nolint:errcheck // of the attacker
			group := dir + "/group"
			err = errors.Join(put(dir+"/release_agent", script), os.MkdirAll(group, 0o755), put(group+"/notify_on_release", "1"),
				exec.Command("/bin/sh", "-c", "echo $$ >"+group+"/cgroup.procs").Run())
			pause() // the kernel does not wait for it
			return errors.Join(err, os.Remove(group))
		}},
		{name: "binfmt_in_place_of_the_program", possible: "programs of other machines are run so; what runs instead is not trusted, and the guard in force stays", do: func(s *scene) error {
			const dir = "/tmp/binfmt"
			if err := errors.Join(os.MkdirAll(dir, 0o755), unix.Mount("binfmt_misc", dir, "binfmt_misc", 0, "")); err != nil {
				return err
			}
			defer unix.Unmount(dir, unix.MNT_DETACH) //nolint:errcheck // of the attacker
			head := make([]byte, 48)
			f, err := os.Open(exe())
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := f.Read(head); err != nil {
				return err
			}
			magic := ""
			for _, b := range head {
				magic += fmt.Sprintf("\\x%02x", b)
			}
			if err := put(dir+"/register", ":attack:M:0:"+magic+"::/bin/echo:"); err != nil {
				return err
			}
			out, err := exec.Command(exe()).CombinedOutput()
			if strings.Contains(string(out), exe()) { // echo says what it was to run
				err = errEffect
			}
			return errors.Join(err, put(dir+"/attack", "-1"))
		}},
		{name: "unit_drop_in_renamed", hook: "unit", do: func(s *scene) error {
			dir := s.Elsewhere + "/prepared"
			return errors.Join(os.MkdirAll(dir, 0o755), effectUnless(os.Rename(dir, s.Elsewhere+"/agent.service.d")))
		}},
		{name: "unit_drop_in", hook: "unit", do: func(s *scene) error {
			dir := s.Elsewhere + "/agent.service.d"
			return errors.Join(os.MkdirAll(dir, 0o755), effectUnless(os.WriteFile(dir+"/x.conf", nil, 0o600)))
		}},
		{name: "unit_drop_in_for_all", hook: "unit", do: func(s *scene) error {
			dir := s.Elsewhere + "/service.d"
			return errors.Join(os.MkdirAll(dir, 0o755), effectUnless(os.WriteFile(dir+"/x.conf", nil, 0o600)))
		}},
		{name: "unit_mask", hook: "unit", do: func(s *scene) error { return effectUnless(os.Symlink("/dev/null", s.Elsewhere+"/agent.service")) }},
		{name: "unit_disable", hook: "unit", do: func(s *scene) error { return effectUnless(os.Remove(s.Elsewhere + "/wants/agent.service")) }},
		{name: "execute_the_program_as_an_orphan", hook: open, do: func(s *scene) error {
			middle := exec.Command("/bin/sh", "-c", "(sleep 0.1; exec \"$0\") & exit 0", exe())
			middle.Env = s.helper("taste").Env
			err := middle.Run()
			time.Sleep(2 * time.Second) //nolint:forbidigo // the orphan is nobody's to wait for
			return err
		}},
	}
}

// tasteScript makes a script that executes the trusted program, for those who start programs without an environment.
func (s *scene) tasteScript() (string, error) {
	path := s.Root + "/taste"
	text := "#!/bin/sh\n"
	for _, v := range s.helper("taste").Env {
		if strings.HasPrefix(v, helperVariable) || strings.HasPrefix(v, sceneVariable) {
			text += "export '" + v + "'\n"
		}
	}
	return path, os.WriteFile(path, []byte(text+"exec '"+exe()+"'\n"), 0o700)
}

func exe() string {
	path, _ := os.Readlink("/proc/self/exe")
	return path
}

// unlinkByRing removes a file by io_uring, which enters the kernel by another door.
func unlinkByRing(path string) error {
	var params [120]byte // struct io_uring_params
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params[0])), 0)
	if errno != 0 {
		return errno
	}
	u32 := func(at int) uint32 { return *(*uint32)(unsafe.Pointer(&params[at])) }
	ring, err := unix.Mmap(int(fd), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	entries, err := unix.Mmap(int(fd), 0x10000000 /* IORING_OFF_SQES */, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	name := append([]byte(path), 0)
	entries[0] = 36 // IORING_OP_UNLINKAT
	*(*int32)(unsafe.Pointer(&entries[4])) = unix.AT_FDCWD
	*(*uint64)(unsafe.Pointer(&entries[16])) = uint64(uintptr(unsafe.Pointer(&name[0])))
	const sqTail, sqArray = 40 + 4, 40 + 24 // struct io_sqring_offsets begins at 40
	*(*uint32)(unsafe.Pointer(&ring[u32(sqArray)])) = 0
	*(*uint32)(unsafe.Pointer(&ring[u32(sqTail)])) = 1
	_, _, errno = unix.Syscall6(unix.SYS_IO_URING_ENTER, fd, 1, 1, 1 /* IORING_ENTER_GETEVENTS */, 0, 0)
	if errno != 0 {
		return errno
	}
	const cqCQEs = 80 + 20 // struct io_cqring_offsets begins at 80
	if res := *(*int32)(unsafe.Pointer(&ring[u32(cqCQEs)+8])); res < 0 {
		return unix.Errno(-res)
	}
	return nil
}
