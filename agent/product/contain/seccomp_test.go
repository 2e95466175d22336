package contain

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The assembled filter, run by an interpreter: what no test can do for real here (foreign architectures, calls that would
// harm) is asked of the program itself.
func TestFilter(t *testing.T) {
	t.Parallel()
	const (
		allow = unix.SECCOMP_RET_ALLOW
		kill  = unix.SECCOMP_RET_KILL_PROCESS
		i386  = unix.AUDIT_ARCH_I386
	)
	eperm, enosys := errno(unix.EPERM), errno(unix.ENOSYS)
	tests := []struct {
		name string
		arch uint32
		nr   uint32
		args [3]uint32
		want uint32
	}{
		{"read", auditArch, unix.SYS_READ, [3]uint32{}, allow},
		{"recvmsg", auditArch, unix.SYS_RECVMSG, [3]uint32{}, allow},
		{"foreign_architecture", i386, unix.SYS_READ, [3]uint32{}, kill},
		{"newest_reviewed", auditArch, newestReviewed, [3]uint32{}, allow},
		{"newer", auditArch, newestReviewed + 1, [3]uint32{}, enosys},
		{"mount", auditArch, unix.SYS_MOUNT, [3]uint32{}, eperm},
		{"reboot", auditArch, unix.SYS_REBOOT, [3]uint32{}, eperm},
		{"kexec_load", auditArch, unix.SYS_KEXEC_LOAD, [3]uint32{}, eperm},
		{"init_module", auditArch, unix.SYS_INIT_MODULE, [3]uint32{}, eperm},
		{"clone3", auditArch, unix.SYS_CLONE3, [3]uint32{}, enosys},
		{"fork", auditArch, unix.SYS_CLONE, [3]uint32{uint32(unix.SIGCHLD)}, allow},
		{"thread", auditArch, unix.SYS_CLONE, [3]uint32{unix.CLONE_VM | unix.CLONE_THREAD | unix.CLONE_SIGHAND}, allow},
		{"clone_net", auditArch, unix.SYS_CLONE, [3]uint32{unix.CLONE_NEWNET}, eperm},
		{"clone_user", auditArch, unix.SYS_CLONE, [3]uint32{unix.CLONE_VM | unix.CLONE_NEWUSER}, eperm},
		{"unix_socket", auditArch, unix.SYS_SOCKET, [3]uint32{unix.AF_UNIX, unix.SOCK_SEQPACKET, 0}, allow},
		{"tcp", auditArch, unix.SYS_SOCKET, [3]uint32{unix.AF_INET, unix.SOCK_STREAM, 0}, allow},
		{"udp6", auditArch, unix.SYS_SOCKET, [3]uint32{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP}, allow},
		{"multipath_tcp", auditArch, unix.SYS_SOCKET, [3]uint32{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, errno(unix.EPROTONOSUPPORT)},
		{"sctp6", auditArch, unix.SYS_SOCKET, [3]uint32{unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_SCTP}, errno(unix.EPROTONOSUPPORT)},
		{"netlink", auditArch, unix.SYS_SOCKET, [3]uint32{unix.AF_NETLINK, unix.SOCK_RAW, 0}, errno(unix.EAFNOSUPPORT)},
		{"vsock", auditArch, unix.SYS_SOCKET, [3]uint32{unix.AF_VSOCK, unix.SOCK_STREAM, 0}, errno(unix.EAFNOSUPPORT)},
		{"batch", auditArch, unix.SYS_SCHED_SETSCHEDULER, [3]uint32{0, unix.SCHED_BATCH}, allow},
		{"fifo", auditArch, unix.SYS_SCHED_SETSCHEDULER, [3]uint32{0, unix.SCHED_FIFO}, eperm},
		{"ioctl", auditArch, unix.SYS_IOCTL, [3]uint32{0, unix.TCGETS}, allow},
		{"type_into_a_terminal", auditArch, unix.SYS_IOCTL, [3]uint32{0, unix.TIOCSTI}, eperm},
		{"read_personality", auditArch, unix.SYS_PERSONALITY, [3]uint32{0xffffffff}, allow},
		{"set_personality", auditArch, unix.SYS_PERSONALITY, [3]uint32{0x0400000}, eperm},
	}
	if foreignBit != 0 {
		tests = append(tests, struct {
			name string
			arch uint32
			nr   uint32
			args [3]uint32
			want uint32
		}{"x32", auditArch, foreignBit | unix.SYS_READ, [3]uint32{}, kill})
	}
	vm := interpreter(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// struct seccomp_data; the interpreter loads big-endian words, as socket filters do.
			data := make([]byte, 64)
			binary.BigEndian.PutUint32(data[dataNR:], tt.nr)
			binary.BigEndian.PutUint32(data[dataArch:], tt.arch)
			for i, a := range tt.args {
				binary.BigEndian.PutUint32(data[dataArg0+8*i:], a)
			}
			got, err := vm.Run(data)
			if err != nil || uint32(got) != tt.want {
				t.Errorf("got %#x, %v; want %#x", uint32(got), err, tt.want)
			}
		})
	}
}

func interpreter(t *testing.T) *bpf.VM {
	t.Helper()
	var raw []bpf.RawInstruction
	for _, i := range filter() {
		raw = append(raw, bpf.RawInstruction{Op: i.Code, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the filter has an instruction that is none")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}
