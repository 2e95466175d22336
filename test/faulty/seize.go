package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// seize tries what a product must not be able to do, one thing after the other, and reports what came of each. The settings
// name its victims.
func (b *behaviour) seize() {
	fields := map[string]string{}
	for name, try := range b.attempts() {
		fields[name] = fmt.Sprint(try())
	}
	b.finding("seize", fields)
}

func (b *behaviour) attempts() map[string]func() error {
	a := map[string]func() error{
		"init_module":   initModule,
		"finit_module":  finitModule,
		"delete_module": func() error { return call(unix.SYS_DELETE_MODULE, text("ext4"), 0) },
		"kexec":         func() error { return call(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0) },
		"bpf_map":       func() error { return call(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&[16]uint32{2, 4, 4, 1})), 64) },
		"bpf_program":   loadProgram,
		"perf":          perf,
		"settime":       func() error { return unix.Settimeofday(&unix.Timeval{Sec: 1}) },
		"reboot":        func() error { return call(unix.SYS_REBOOT, 0, 0, 0, 0) }, // without the magic numbers nothing would happen
		"mount":         func() error { return unix.Mount("none", "/tmp", "tmpfs", 0, "") },
		"fanotify":      func() error { return call(unix.SYS_FANOTIFY_INIT, unix.FAN_CLASS_CONTENT, 0) },
		"sysctl":        func() error { return os.WriteFile("/proc/sys/kernel/panic_on_oops", []byte("1"), 0) },
		"oom_score":     func() error { return os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0) },
		"hosts":         func() error { return os.WriteFile("/etc/hosts", []byte("127.0.0.1 updates\n"), 0o644) },
		"own_release":   func() error { return os.WriteFile("/product/manifest.toml", []byte("x"), 0o644) },
		"internet":      func() error { return dial("tcp", "192.0.2.1:443") },
	}
	for _, p := range strings.FieldsFunc(b.set["victims"], func(r rune) bool { return r == ',' }) {
		pid, err := strconv.Atoi(p)
		if err != nil {
			continue
		}
		a["kill_"+p] = func() error { return unix.Kill(pid, unix.SIGKILL) }
		a["ptrace_"+p] = func() error { return unix.PtraceAttach(pid) }
		a["memory_"+p] = func() error { _, err := os.ReadFile("/proc/" + p + "/mem"); return err }
	}
	for i, path := range strings.FieldsFunc(b.set["targets"], func(r rune) bool { return r == ',' }) {
		a[fmt.Sprintf("write_%d", i)] = func() error { return os.WriteFile(path, []byte("x"), 0o644) }
		a[fmt.Sprintf("unlink_%d", i)] = func() error { return os.Remove(path) }
		a[fmt.Sprintf("dial_%d", i)] = func() error { return dial("unix", path) }
	}
	return a
}

func call(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, e := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]); e != 0 {
		return e
	}
	return nil
}

func text(s string) uintptr {
	p, err := unix.BytePtrFromString(s)
	if err != nil {
		panic(err)
	}
	return uintptr(unsafe.Pointer(p))
}

// initModule hands the kernel the module that the product's folder brings.
func initModule() error {
	image, err := os.ReadFile("sensor.ko")
	if err != nil {
		image = []byte("\x7fELF")
	}
	return call(unix.SYS_INIT_MODULE, uintptr(unsafe.Pointer(&image[0])), uintptr(len(image)), text(""))
}

func finitModule() error {
	f, err := os.Open("sensor.ko")
	if err != nil {
		return fmt.Errorf("no module to load: %w", err)
	}
	defer f.Close()
	return call(unix.SYS_FINIT_MODULE, f.Fd(), text(""), 0)
}

// loadProgram asks for the smallest socket filter: r0 = 0; exit.
func loadProgram() error {
	code := [2]uint64{0xb7, 0x95}
	licence := text("GPL")
	attr := struct {
		kind, count    uint32
		code, licence  uint64
		level, size    uint32
		buffer         uint64
		version, flags uint32
		name           [16]byte
		_              [64]byte
	}{kind: 1, count: 2, code: uint64(uintptr(unsafe.Pointer(&code[0]))), licence: uint64(licence)}
	return call(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
}

func perf() error {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Config: unix.PERF_COUNT_SW_CPU_CLOCK}
	_, err := unix.PerfEventOpen(&attr, 0, -1, -1, 0)
	return err
}

func dial(network, address string) error {
	c, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}
