package sdk

import (
	"os"
	"testing"

	productv1 "bailey/api/product/v1"

	"golang.org/x/sys/unix"

	"bailey/api/product/v1/wire"
)

// sampleEvent is an exec as it comes from a real machine.
func sampleEvent() *Event {
	file := &File{
		Path: "/usr/bin/x86_64-linux-gnu-gcc-12", Dev: 0xfe01, Ino: 1_311_845, Ctime: 1_760_000_000_123_456_789,
		Mtime: 1_750_000_000_987_654_321, Size: 1_265_648, Mode: 0o100755,
	}
	return &Event{
		Kind: Exec, Seq: 1_234_567, Time: 86_400_123_456_789,
		Process: &Process{
			Key: &ProcessKey{Pid: 183_021, Start: 86_400_120_000_000}, Parent: &ProcessKey{Pid: 183_002, Start: 86_399_120_000_000},
			Comm: "gcc", Executable: file, CgroupId: 7311, Cgroup: "/user.slice/user-1000.slice/session-4.scope",
			Credentials: &Credentials{Uid: 1000, Euid: 1000, Suid: 1000, Fsuid: 1000, Gid: 1000, Egid: 1000, Sgid: 1000, Fsgid: 1000},
		},
		Exec: &productv1.Exec{
			Argv: []string{"gcc", "-O2", "-g", "-Wall", "-Iinclude", "-c", "-o", "build/main.o", "src/main.c"}, Argc: 9,
			EnvSize: 2311, Cwd: "/home/someone/src/project", PreviousExe: "/usr/bin/make",
		},
	}
}

func frameOf(tb testing.TB, h productv1.Header, m interface{ MarshalVT() ([]byte, error) }) []byte {
	tb.Helper()
	payload, err := m.MarshalVT()
	if err != nil {
		tb.Fatal(err)
	}
	h.Length = uint32(productv1.HeaderSize + len(payload))
	b := make([]byte, productv1.HeaderSize)
	h.Put(b)
	return append(b, payload...)
}

// BenchmarkDecodeEvents is what one core does for an event that has been received: cut the frame, copy it into the inbox,
// decode it, call OnEvent, recycle it.
func BenchmarkDecodeEvents(b *testing.B) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	sock, err := wire.NewSocket(fds[0])
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = sock.Close() }()
	defer unix.Close(fds[1])
	var sum uint64
	p := Product{OnEvent: func(e *Event) { sum += e.GetProcess().GetExecutable().GetIno() + uint64(len(e.GetExec().GetArgv())) }, Stderr: os.Stderr}
	s := newSession(p, sock)
	s.welcome.Store(&productv1.Welcome{EventWindow: ^uint32(0)})
	d := deliverer{s: s}
	frame := frameOf(b, productv1.Header{Kind: productv1.FrameEvent, Seq: 1}, sampleEvent())
	const batch = 64
	var datagram, spare []byte
	for range batch {
		datagram = append(datagram, frame...)
	}
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	b.ResetTimer()
	began := cpuTime(b)
	for i := 0; i < b.N; i += batch {
		for rest := datagram; len(rest) > 0; {
			f := wire.Frame{FD: -1}
			if f.Header, f.Payload, rest, err = productv1.Next(rest); err != nil {
				b.Fatal(err)
			}
			s.inbox.add(f)
		}
		frames, _ := s.inbox.take(spare)
		d.unacked, d.last = 0, 0
		for rest := frames; len(rest) > 0; {
			var h productv1.Header
			var payload []byte
			if h, payload, rest, err = productv1.Next(rest); err != nil {
				b.Fatal(err)
			}
			if err := d.one(&h, payload); err != nil {
				b.Fatal(err)
			}
		}
		spare = frames
	}
	b.ReportMetric(float64(b.N)/(cpuTime(b)-began)/1e6, "Mevents/cpu-s")
}

// cpuTime returns the seconds of CPU that this process has used: on a busy machine the wall clock says nothing about what
// one core could do.
func cpuTime(b *testing.B) float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
