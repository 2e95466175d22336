// Package transport_test measures the way between the agent and a product, with the real link and the real SDK in two
// processes. It is no test of correctness. Run it with
//
//	go test -run '^$' -bench . -benchtime 50000x ./test/bench/transport
//
// "one" pins both processes to the same CPU, "free" leaves them to the scheduler. Allocations are the agent's.
package transport_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"bailey/agent/event"
	"bailey/agent/product/link"
	productv1 "bailey/api/product/v1"
	"bailey/sdk"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv("BAILEY_BENCH_PRODUCT"); mode != "" {
		if err := sdk.Run(context.Background(), benchProduct(mode)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// benchProduct looks at what a real product looks at.
func benchProduct(mode string) sdk.Product {
	var sum uint64
	p := sdk.Product{
		Events: []sdk.Kind{sdk.Exec}, Questions: []sdk.Kind{sdk.Exec},
		OnEvent: func(e *sdk.Event) {
			sum += e.GetProcess().GetExecutable().GetIno() + uint64(len(e.GetExec().GetArgv()))
		},
		OnQuestion: func(_ context.Context, q *sdk.Question) sdk.Answer {
			if q.File.GetPath() == "/nowhere" {
				return sdk.Deny
			}
			return sdk.Allow.CacheFile()
		},
	}
	if mode == "inline" {
		p.Workers = sdk.Inline
	}
	return p
}

// sample is an exec as it comes from a real machine.
func sample() *event.Event {
	file := func(path string) event.File {
		return event.File{Path: path, Dev: 0xfe01, Ino: 1_311_845, CTime: 1_760_000_000_123_456_789, MTime: 1_750_000_000_987_654_321, Size: 1_265_648, Mode: 0o100755}
	}
	return &event.Event{
		Kind: event.Exec, Seq: 1_234_567, Time: 86_400_123_456_789,
		Process: &event.Process{
			Key: event.ProcessKey{PID: 183_021, Start: 86_400_120_000_000}, Parent: event.ProcessKey{PID: 183_002, Start: 86_399_120_000_000},
			Comm: "gcc", Executable: file("/usr/bin/x86_64-linux-gnu-gcc-12"),
			Credentials: event.Credentials{UID: 1000, EUID: 1000, SUID: 1000, FSUID: 1000, GID: 1000, EGID: 1000, SGID: 1000, FSGID: 1000},
			CgroupID:    7311, Cgroup: "/user.slice/user-1000.slice/session-4.scope",
		},
		Exec: &event.ExecDetail{
			Argv: []string{"gcc", "-O2", "-g", "-Wall", "-Iinclude", "-c", "-o", "build/main.o", "src/main.c"}, Argc: 9, EnvSize: 2311,
			CWD: "/home/someone/src/project", PreviousExe: "/usr/bin/make",
		},
	}
}

func sampleQuestion() *event.Question {
	e := sample()
	return &event.Question{ID: 1, Kind: event.Exec, Time: e.Time, Process: e.Process, File: e.Process.Executable}
}

// agent is the agent's side of one bench.
type agent struct {
	b      *testing.B
	conn   *link.Conn
	ready  chan struct{}
	acks   chan uint64
	answer func(id uint64)
}

func (a *agent) Answer(id uint64, _, _ bool) error              { a.answer(id); return nil }
func (a *agent) Extend(uint64, uint64) error                    { return nil }
func (a *agent) Finding(*productv1.Finding) error               { return nil }
func (*agent) InstallRule(uint64, *productv1.RuleInstall) error { return nil }
func (*agent) RemoveRule(uint64, *productv1.RuleRemove) error   { return nil }
func (a *agent) Ack(seq uint64)                                 { a.acks <- seq }
func (a *agent) Subscribe(*productv1.Subscribe) error           { close(a.ready); return nil }

const window = 4096

// start starts the product and shakes hands; the product ends with b.
func start(b *testing.B, mode string, stream, one bool) *agent {
	b.Helper()
	if one {
		pin(b)
	}
	typ := unix.SOCK_SEQPACKET
	if stream {
		typ = unix.SOCK_STREAM
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "product's end")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "BAILEY_BENCH_PRODUCT="+mode)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	_ = theirs.Close()
	conn, err := link.New(fds[0], link.Options{Stream: stream})
	if err != nil {
		b.Fatal(err)
	}
	a := &agent{b: b, conn: conn, ready: make(chan struct{}), acks: make(chan uint64, window)}
	done := make(chan error, 1)
	go func() { done <- conn.Run(a) }()
	b.Cleanup(func() {
		_ = conn.SendStop(^uint64(0) >> 1)
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
		_ = conn.Close()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	if err := conn.SendWelcome(&productv1.Welcome{Protocol: 1, Authority: "live", EventWindow: window}); err != nil {
		b.Fatal(err)
	}
	<-a.ready
	return a
}

// pin moves every thread of this process, and so its children, to the first CPU it may use, until b ends.
func pin(b *testing.B) {
	b.Helper()
	var before, first unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		b.Fatal(err)
	}
	for cpu := range 1024 {
		if before.IsSet(cpu) {
			first.Set(cpu)
			break
		}
	}
	set := func(s *unix.CPUSet) {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			b.Fatal(err)
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				b.Fatal(err)
			}
			_ = unix.SchedSetaffinity(tid, s) // a thread may have ended meanwhile
		}
	}
	procs := runtime.GOMAXPROCS(1)
	set(&first)
	b.Cleanup(func() {
		set(&before)
		runtime.GOMAXPROCS(procs)
	})
}

// BenchmarkRoundTrip is one question and its answer, from SendQuestion to Handler.Answer.
func BenchmarkRoundTrip(b *testing.B) {
	for _, stream := range []bool{false, true} {
		for _, where := range []string{"one", "free"} {
			for _, mode := range []string{"inline", "pool"} {
				for _, fd := range []bool{true, false} {
					name := fmt.Sprintf("%s/%s/%s/%s", map[bool]string{false: "seqpacket", true: "stream"}[stream], where, mode,
						map[bool]string{true: "fd", false: "bare"}[fd])
					b.Run(name, func(b *testing.B) { roundTrip(b, mode, stream, where == "one", fd) })
				}
			}
		}
	}
}

func roundTrip(b *testing.B, mode string, stream, one, withFD bool) {
	a := start(b, mode, stream, one)
	fd := -1
	if withFD {
		f, err := os.Open("/proc/self/exe")
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		fd = int(f.Fd())
	}
	var codec link.Codec
	q := sampleQuestion()
	payload := codec.AppendQuestion(nil, q)
	times := make([]time.Duration, 0, b.N)
	finished := make(chan error, 1)
	var began time.Time
	ask := func(id uint64) {
		payload = codec.AppendQuestion(payload[:0], q)
		began = time.Now()
		if err := a.conn.SendQuestion(id, id, 0, false, false, payload, fd); err != nil {
			finished <- err
		}
	}
	a.answer = func(id uint64) { // on the thread that reads, as the verdict engine has it
		times = append(times, time.Since(began))
		if len(times) == b.N {
			finished <- nil
			return
		}
		ask(id + 1)
	}
	b.ReportAllocs()
	b.ResetTimer()
	ask(1)
	if err := <-finished; err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1000, "µs-p50")
	b.ReportMetric(float64(times[len(times)*99/100].Nanoseconds())/1000, "µs-p99")
}

// BenchmarkEvents is events from the agent's SendEvents to the product's OnEvent, acknowledged.
func BenchmarkEvents(b *testing.B) {
	for _, stream := range []bool{false, true} {
		for _, where := range []string{"one", "free"} {
			b.Run(map[bool]string{false: "seqpacket", true: "stream"}[stream]+"/"+where, func(b *testing.B) {
				a := start(b, "inline", stream, where == "one")
				events(b, a)
			})
		}
	}
}

func events(b *testing.B, a *agent) {
	payload := new(link.Codec).AppendEvent(nil, sample())
	b.SetBytes(int64(len(payload)))
	batch := make([]event.Packet, 64)
	b.ReportAllocs()
	b.ResetTimer()
	var sent, acked uint64
	for acked < uint64(b.N) {
		n := min(uint64(len(batch)), uint64(b.N)-sent, window-(sent-acked))
		for i := range n {
			batch[i] = event.Packet{Seq: sent + i + 1, Payload: payload}
		}
		out, err := a.conn.SendEvents(batch[:n])
		sent += uint64(out)
		switch {
		case err != nil && !errors.Is(err, event.ErrFull):
			b.Fatal(err)
		case err != nil || n == 0:
			acked = <-a.acks
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mevents/s")
}
