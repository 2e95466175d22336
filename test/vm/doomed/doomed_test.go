package doomed

import (
	"bailey/internal/roottest"

	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func onlyInAMachine(t *testing.T) {
	t.Helper()
	roottest.RequireVM(t, "ends the machine it runs in")
}

// TestPanic makes the kernel panic.
func TestPanic(t *testing.T) {
	onlyInAMachine(t)
	t.Log(os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0))
	select {}
}

// TestHang leaves no processor to anybody else, process 1 included.
func TestHang(t *testing.T) {
	onlyInAMachine(t)
	if err := os.WriteFile("/proc/sys/kernel/sched_rt_runtime_us", []byte("-1"), 0); err != nil {
		t.Fatal(err)
	}
	for range runtime.NumCPU() {
		go func() {
			runtime.LockOSThread()
			if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 99}, 0); err != nil {
				panic(err)
			}
			for { //nolint:staticcheck // it is to spin
			}
		}()
	}
	select {}
}

// TestSleep waits for ever, in a machine that is well.
func TestSleep(t *testing.T) {
	onlyInAMachine(t)
	select {}
}
