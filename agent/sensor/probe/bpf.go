package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"bailey/agent/health"
	"bailey/internal/lsm"
)

const (
	btfFile  = "/sys/kernel/btf/vmlinux"
	btfMagic = 0xeB9F // linux/btf.h
	lsmFile  = "/sys/kernel/security/lsm"
	lsmIDBPF = 109 // LSM_ID_BPF in linux/lsm.h
)

func bpfFeatures() []Feature {
	const polled = "; until then processes are read from /proc, and short ones are missed"
	return []Feature{
		feature("bpf.btf", "one BPF object runs on every kernel", "5.4", "use a kernel with CONFIG_DEBUG_INFO_BTF"+polled, health.Degraded, checkBTF),
		feature("bpf.ring_buffer", "events reach the agent in order and with their losses counted", "5.8",
			"use a newer kernel"+polled, health.Degraded, checkRing),
		feature("bpf.tracepoint", "every fork, exec and exit is seen (tp_btf)", "5.5",
			"use a kernel with CONFIG_BPF_EVENTS and run the agent with CAP_BPF and CAP_PERFMON"+polled, health.Degraded, checkTracepoint),
		feature("bpf.task_iterator", "processes from before the agent are known with their exact start", "5.8",
			"use a newer kernel; until then /proc is read", health.OK, checkIterator),
		feature("bpf.map_memory", "the flags of all pids fit in a BPF map", "5.11",
			"raise RLIMIT_MEMLOCK (LimitMEMLOCK=infinity in the unit), or use a newer kernel, which does not count it", health.Degraded, checkMapMemory),
		feature("bpf.lsm_active", "the guard can refuse what root tries against the platform: the kernel calls BPF LSM programs", "5.7",
			lsm.Remedy("bpf"), health.Degraded, checkLSMActive),
		feature("bpf.lsm_load", "the guard can be loaded", "5.7",
			"use a kernel with CONFIG_BPF_LSM, and no lockdown in confidentiality mode", health.OK, checkLSMLoad),
	}
}

func checkBTF() error {
	f, err := os.Open(btfFile)
	if err != nil {
		return fmt.Errorf("open the kernel's types: %w", err)
	}
	defer f.Close()
	var magic [2]byte
	if _, err := f.Read(magic[:]); err != nil {
		return fmt.Errorf("read the kernel's types: %w", err)
	}
	if binary.NativeEndian.Uint16(magic[:]) != btfMagic {
		return fmt.Errorf("%s is not BTF", btfFile)
	}
	return nil
}

func checkMap(spec ebpf.MapSpec) error {
	m, err := ebpf.NewMap(&spec)
	if err != nil {
		return fmt.Errorf("make a BPF map: %w", err)
	}
	return m.Close()
}

func checkRing() error {
	return checkMap(ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: uint32(os.Getpagesize())})
}

func checkMapMemory() error {
	const pids = 4 * 1024 * 1024 // two bytes each, as the process sensor has them
	return checkMap(ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: pids / 4, Flags: unix.BPF_F_MMAPABLE})
}

// idle loads a program that does nothing.
func idle(kind ebpf.ProgramType, attach ebpf.AttachType, to string) (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: kind, AttachType: attach, AttachTo: to, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("load a BPF program for %s: %w", to, err)
	}
	return p, nil
}

func checkTracepoint() error {
	p, err := idle(ebpf.Tracing, ebpf.AttachTraceRawTp, "sched_process_exec")
	if err != nil {
		return err
	}
	defer p.Close() //nolint:errcheck // nothing was written
	l, err := link.AttachTracing(link.TracingOptions{Program: p})
	if err != nil {
		return fmt.Errorf("attach a BPF program to a tracepoint: %w", err)
	}
	return l.Close()
}

func checkIterator() error {
	p, err := idle(ebpf.Tracing, ebpf.AttachTraceIter, "task")
	if err != nil {
		return err
	}
	defer p.Close() //nolint:errcheck // nothing was written
	l, err := link.AttachIter(link.IterOptions{Program: p})
	if err != nil {
		return fmt.Errorf("attach a BPF task iterator: %w", err)
	}
	return l.Close()
}

func checkLSMLoad() error {
	p, err := idle(ebpf.LSM, ebpf.AttachLSMMac, "file_open")
	if err != nil {
		return err
	}
	return p.Close()
}

// checkLSMActive asks for the list of active LSMs: without bpf in it, programs attach without an error and never run.
func checkLSMActive() error {
	var ids [64]uint64
	size := uint32(unsafe.Sizeof(ids))
	n, _, errno := unix.Syscall(unix.SYS_LSM_LIST_MODULES, uintptr(unsafe.Pointer(&ids)), uintptr(unsafe.Pointer(&size)), 0)
	if errno == 0 {
		for _, id := range ids[:min(int(n), len(ids))] {
			if id == lsmIDBPF {
				return nil
			}
		}
		return errors.New("bpf is not among the active LSMs")
	}
	data, err := os.ReadFile(lsmFile) // before 6.8
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read the list of LSMs: %w (is securityfs mounted on /sys/kernel/security?)", err)
	}
	if err != nil {
		return fmt.Errorf("read the list of LSMs: %w", err)
	}
	return listed(string(data))
}

// listed reports whether bpf is in the content of the list of LSMs.
func listed(list string) error {
	for name := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		if name == "bpf" {
			return nil
		}
	}
	return fmt.Errorf("bpf is not among the active LSMs (%s)", strings.TrimSpace(list))
}
